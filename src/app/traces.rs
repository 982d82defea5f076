//! The export of traces, for as long as a daemon runs. Without the feature `otlp` there is none.

use crate::app::Exit;
use crate::config::TraceSettings;

/// The export, when there is one.
pub(super) struct Traces {
    #[cfg(feature = "otlp")]
    exporter: Option<crate::otlp::Exporter>,
}

impl Traces {
    /// Begins to export to this collector.
    #[cfg(feature = "otlp")]
    pub(super) fn start(settings: Option<TraceSettings>) -> Result<Self, Exit> {
        let exporter = settings.map(crate::otlp::Exporter::start).transpose().map_err(|error| {
            tracing::error!(%error, "traces cannot be exported");
            Exit::Internal
        })?;
        Ok(Traces { exporter })
    }

    /// Settings of a build that exports nothing have no collector.
    #[cfg(not(feature = "otlp"))]
    pub(super) fn start(_: Option<TraceSettings>) -> Result<Self, Exit> {
        Ok(Traces {})
    }

    /// Sends what is left, within a bound.
    pub(super) async fn stop(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.stop(LAST_TRACES).await;
        }
    }
}

/// How long the last traces may take, on top of all else that ends.
#[cfg(feature = "otlp")]
const LAST_TRACES: std::time::Duration = std::time::Duration::from_secs(1);
