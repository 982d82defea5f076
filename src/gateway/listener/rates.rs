//! How much one client may ask: requests in a time, and requests at once.
//!
//! A client is an IP address; of IPv6 the first 64 bits, which is what one gets. The table of clients is bounded: those
//! beyond share one entry. Time comes in as a value.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What one client may ask. The numbers are the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// So many requests ...
    pub requests: u32,
    /// ... within this time.
    pub window: Duration,
    /// So many requests that are not answered yet.
    pub in_flight: u32,
    /// Clients on this machine count as well. They are mostly programs of the same owner, or a proxy that stands for
    /// many clients and can tell them apart.
    pub loopback: bool,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit { requests: 10_000, window: Duration::from_mins(1), in_flight: 2_000, loopback: false }
    }
}

/// The clients and what they have asked lately.
#[derive(Debug)]
pub(super) struct Rates {
    limit: RateLimit,
    clients: Mutex<Clients>,
}

#[derive(Debug)]
struct Clients {
    by_address: HashMap<IpAddr, Client>,
    swept: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    since: Instant,
    requests: u32,
    in_flight: u32,
}

/// A request that counts as in flight until this is dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    rates: Arc<Rates>,
    address: IpAddr,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    /// In this time; the next may come after so long.
    Requests(Duration),
    /// At once.
    InFlight,
}

impl Rates {
    pub(super) fn new(limit: RateLimit, now: Instant) -> Arc<Self> {
        Arc::new(Rates { limit, clients: Mutex::new(Clients { by_address: HashMap::new(), swept: now }) })
    }

    /// Counts a request; nothing when its client is not counted.
    ///
    /// # Errors
    /// [`TooMany`]; then it does not count.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Option<InFlight>, TooMany> {
        let address = address.to_canonical();
        if address.is_loopback() && !self.limit.loopback {
            return Ok(None);
        }
        let mut clients = self.clients();
        let address = clients.place(client_of(address), self.limit.window, now);
        let client = clients.by_address.entry(address).or_insert(Client { since: now, requests: 0, in_flight: 0 });
        let age = now.saturating_duration_since(client.since);
        if age >= self.limit.window {
            (client.since, client.requests) = (now, 0);
        }
        if client.requests >= self.limit.requests {
            return Err(TooMany::Requests(self.limit.window.saturating_sub(age)));
        }
        if client.in_flight >= self.limit.in_flight {
            return Err(TooMany::InFlight);
        }
        client.requests += 1;
        client.in_flight += 1;
        Ok(Some(InFlight { rates: Arc::clone(self), address }))
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    /// Under which address a client is counted: its own while there is room for it.
    fn place(&mut self, address: IpAddr, window: Duration, now: Instant) -> IpAddr {
        if self.by_address.len() < CLIENTS_MAX || self.by_address.contains_key(&address) {
            return address;
        }
        // Looking at all of them takes a moment, so not for every stranger.
        if now.saturating_duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.by_address
                .retain(|_, client| client.in_flight > 0 || now.saturating_duration_since(client.since) < window);
            if self.by_address.len() < CLIENTS_MAX {
                return address;
            }
        }
        ALL_OTHERS
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(client) = self.rates.clients().by_address.get_mut(&self.address) {
            client.in_flight = client.in_flight.saturating_sub(1);
        }
    }
}

fn client_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Clients with an entry of their own: some megabytes.
const CLIENTS_MAX: usize = 50_000;
/// Between two looks for entries that can go.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Stands for all that have no entry of their own.
const ALL_OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { requests: 3, window: Duration::from_secs(60), in_flight: 2, loopback: false };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn so_many_requests_in_a_time_and_not_one_more() {
        let now = Instant::now();
        let rates = Rates::new(LIMIT, now);
        for _ in 0..3 {
            assert!(rates.admit(ip("192.0.2.1"), now).expect("within the limit").is_some());
        }
        let later = now + Duration::from_secs(59);
        assert_eq!(rates.admit(ip("192.0.2.1"), later).err(), Some(TooMany::Requests(Duration::from_secs(1))));
        assert!(rates.admit(ip("192.0.2.2"), later).is_ok(), "another client is not concerned");
        assert!(rates.admit(ip("192.0.2.1"), now + Duration::from_secs(60)).is_ok());
    }

    #[test]
    fn so_many_at_once_and_not_one_more() {
        let now = Instant::now();
        let rates = Rates::new(RateLimit { requests: 100, ..LIMIT }, now);
        let first = rates.admit(ip("192.0.2.1"), now).expect("within the limit");
        let _second = rates.admit(ip("192.0.2.1"), now).expect("within the limit");
        assert_eq!(rates.admit(ip("192.0.2.1"), now).err(), Some(TooMany::InFlight));
        drop(first);
        assert!(rates.admit(ip("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn this_machine_counts_only_when_asked_to() {
        let now = Instant::now();
        let rates = Rates::new(RateLimit { requests: 1, ..LIMIT }, now);
        for address in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            for _ in 0..5 {
                assert!(rates.admit(ip(address), now).expect("not counted").is_none(), "{address}");
            }
        }
        let rates = Rates::new(RateLimit { requests: 1, loopback: true, ..LIMIT }, now);
        assert!(rates.admit(ip("127.0.0.1"), now).is_ok());
        assert!(rates.admit(ip("127.0.0.1"), now).is_err());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let now = Instant::now();
        let rates = Rates::new(RateLimit { requests: 1, ..LIMIT }, now);
        assert!(rates.admit(ip("2001:db8::1"), now).is_ok());
        assert!(rates.admit(ip("2001:db8::ffff:2"), now).is_err());
        assert!(rates.admit(ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let now = Instant::now();
        let rates = Rates::new(LIMIT, now);
        let stranger = |number: u32| IpAddr::from((0x0a00_0000_u32 + number).to_be_bytes());
        let most = u32::try_from(CLIENTS_MAX).expect("small");
        for number in 0..most {
            rates.admit(stranger(number), now).expect("within the limit");
        }
        // Those beyond share one entry, and its limit.
        for number in 0..3 {
            rates.admit(stranger(most + number), now).expect("within the limit");
        }
        assert!(rates.admit(stranger(most + 3), now).is_err());
        assert!(rates.admit(stranger(7), now).is_ok(), "who has an entry keeps it");
        assert!(rates.clients().by_address.len() <= CLIENTS_MAX + 1);
        let later = now + LIMIT.window;
        assert!(rates.admit(stranger(most + 3), later).is_ok());
        assert!(rates.clients().by_address.len() < 10);
    }
}
