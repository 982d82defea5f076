//! Addresses that lead no further than this link, where clouds serve the secrets of a machine to whoever asks from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is good only on the link of this machine, in any of its spellings, or one where a cloud keeps
/// the metadata of its machines.
#[must_use]
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_link_local_v4(ip),
        IpAddr::V6(ip) => {
            let segments = ip.segments();
            (segments[0] & 0xffc0) == 0xfe80
                || METADATA_V6.contains(&ip)
                || embedded_v4(&segments).is_some_and(is_link_local_v4)
        }
    }
}

fn is_link_local_v4(ip: Ipv4Addr) -> bool {
    ip.is_link_local() || METADATA_V4.contains(&ip)
}

/// The IPv4 address that an IPv6 address leads to: mapped, compatible, translated (NAT64) and 6to4.
fn embedded_v4(segments: &[u16; 8]) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, _, _, _, _, high, low] => Some(v4(*high, *low)),
        [0x2002, high, low, ..] => Some(v4(*high, *low)),
        _ => None,
    }
}

/// Where clouds keep metadata outside the link-local range.
const METADATA_V4: &[Ipv4Addr] = &[Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// The same over IPv6.
const METADATA_V6: &[Ipv6Addr] =
    &[Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_known_in_every_spelling() {
        for refused in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
        ] {
            assert!(is_link_local(refused.parse().unwrap()), "{refused}");
        }
        for allowed in ["127.0.0.1", "10.0.0.1", "169.253.0.1", "::1", "fec0::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(!is_link_local(allowed.parse().unwrap()), "{allowed}");
        }
    }
}
