//! What a runner is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenroom_protocol::limits::SLOTS_MAX;
use greenroom_protocol::{ActorName, ByteString, Init, Version};
use secrecy::SecretString;

use crate::config::Endpoint;
use crate::host::ActorHost;
use crate::runner::RunnerHandle;
use crate::runner::driver::Driver;
use crate::runner::journal::{Journal, JournalError};
use crate::session::Settings;
use crate::socket::{Patience, Target};

/// Collects the settings of a runner. Everything but the endpoint has a default.
pub struct Builder {
    target: Target,
    name: String,
    version: u32,
    slots: u32,
    metadata: serde_json::Map<String, serde_json::Value>,
    hosts: BTreeMap<Arc<str>, Arc<dyn ActorHost>>,
    data_dir: Option<PathBuf>,
    kv_timeout: Duration,
}

/// Why a runner did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    /// It could hold no actor, or more than a gateway can count.
    #[error("a runner offers 1 to {SLOTS_MAX} slots, not {0}")]
    Slots(u32),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] JournalError),
}

impl Builder {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let target = Target {
            endpoint,
            namespace: "default".to_owned(),
            runner_key: format!("{:032x}", rand::random::<u128>()),
            token: None,
            version: Version::LATEST,
            patience: Patience { silence: SILENCE, pings: PINGS },
        };
        Builder {
            target,
            name: "default".to_owned(),
            version: 1,
            slots: 1000,
            metadata: serde_json::Map::new(),
            hosts: BTreeMap::new(),
            data_dir: None,
            kv_timeout: KV_TIMEOUT,
        }
    }

    /// The namespace at the gateway; `default` unless set.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.target.namespace = namespace.into();
        self
    }

    /// The pool that actors are matched to; `default` unless set.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The runner's identity in its pool; random unless set. Two runners with one key evict each other.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.target.runner_key = key.into();
        self
    }

    /// The token that the gateway wants.
    #[must_use]
    pub fn token(mut self, token: Option<SecretString>) -> Self {
        self.target.token = token;
        self
    }

    /// The version of the actors' code; new actors go to the highest. 1 unless set.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// How many actors the runner holds at once; 1,000 unless set.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// The protocol version; the latest unless set.
    #[must_use]
    pub fn protocol_version(mut self, version: Version) -> Self {
        self.target.version = version;
        self
    }

    /// Something for people to see beside the runner at the gateway.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Where the runner notes which actors it runs, so that its next process can report those that a crash ended.
    /// Without one, a gateway learns of them only by waiting.
    #[must_use]
    pub fn data_dir(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(data_dir.into());
        self
    }

    /// How long a storage request waits for its answer; 30 s unless set.
    #[must_use]
    pub fn kv_timeout(mut self, timeout: Duration) -> Self {
        self.kv_timeout = timeout;
        self
    }

    /// How long a gateway may say nothing before the connection counts as broken; 15 s unless set. Gateways ping every
    /// 3 s.
    #[must_use]
    pub fn gateway_silence(mut self, silence: Duration) -> Self {
        self.target.patience.silence = silence;
        self
    }

    /// How often the time that the gateway takes to answer is measured; each 30 s unless set.
    #[must_use]
    pub fn gateway_pings(mut self, every: Duration) -> Self {
        self.target.patience.pings = every;
        self
    }

    /// Runs actors of this name on a host.
    #[must_use]
    pub fn actor(self, name: impl Into<Arc<str>>, host: impl ActorHost) -> Self {
        self.shared_actor(name, Arc::new(host))
    }

    /// Runs actors of this name on a host that is shared with others.
    #[must_use]
    pub fn shared_actor(mut self, name: impl Into<Arc<str>>, host: Arc<dyn ActorHost>) -> Self {
        self.hosts.insert(name.into(), host);
        self
    }

    /// Starts the runner; it dials at once and goes on until it is drained or refused. Must be called on a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`StartFailure`]; nothing runs then.
    pub fn start(self) -> Result<RunnerHandle, StartFailure> {
        if self.slots == 0 || self.slots > SLOTS_MAX {
            return Err(StartFailure::Slots(self.slots));
        }
        let (journal, lost_lives) = match &self.data_dir {
            Some(data_dir) => {
                let (journal, lost) = Journal::open(data_dir, Instant::now())?;
                (Some(journal), lost)
            }
            None => (None, Vec::new()),
        };
        let names = self
            .hosts
            .keys()
            .map(|name| (ByteString::from(&**name), ActorName { metadata: ByteString::from_static("{}") }))
            .collect();
        let mut metadata = self.metadata;
        metadata.insert("greenroom".to_owned(), env!("CARGO_PKG_VERSION").into());
        let init = Init {
            name: self.name.into(),
            version: self.version,
            total_slots: self.slots,
            prepopulate_actor_names: Some(names),
            metadata: Some(serde_json::Value::Object(metadata).to_string().into()),
        };
        let settings = Settings {
            init,
            version: self.target.version,
            kv_timeout: self.kv_timeout,
            lost_lives,
            seed: rand::random(),
        };
        Ok(Driver::spawn(settings, self.target, self.hosts, journal))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("target", &self.target).field("name", &self.name).finish_non_exhaustive()
    }
}

/// How long a gateway may say nothing: five of its pings, and as long as it waits for our answers to them.
const SILENCE: Duration = Duration::from_secs(15);
/// How often the time of an answer is measured: often enough for a graph, and rare beside the gateway's own pings.
const PINGS: Duration = Duration::from_secs(30);
/// How long a storage request waits for its answer: what the TypeScript runner's users are used to.
const KV_TIMEOUT: Duration = Duration::from_secs(30);
