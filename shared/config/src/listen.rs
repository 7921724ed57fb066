//! Listen addresses: `127.0.0.1:8080`, `localhost:8080`, `8080`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Parses an address and a port. A name is resolved, preferring IPv4; a port alone means the loopback address.
///
/// # Errors
/// What is accepted.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let accepted = "ADDR:PORT, HOST:PORT or PORT is accepted, as in 127.0.0.1:8080, localhost:8080, [::1]:8080 or 8080";
    let (host, port) = text.rsplit_once(':').ok_or(accepted)?;
    let port: u16 = port.parse().map_err(|_| accepted)?;
    // "::1" without brackets also ends in a colon and a number.
    if host.is_empty() || host.contains(':') || text.parse::<IpAddr>().is_ok() {
        return Err(accepted.to_owned());
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let found: Vec<SocketAddr> =
        (host, port).to_socket_addrs().map_err(|error| format!("the name {host} is not found: {error}"))?.collect();
    let address = found.iter().find(|address| address.is_ipv4()).or(found.first());
    address.copied().ok_or_else(|| format!("the name {host} has no address"))
}

/// Deserializes a setting; a number is a port.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    struct Address;
    impl Visitor<'_> for Address {
        type Value = SocketAddr;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address with a port, like \"127.0.0.1:8080\"")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<SocketAddr, E> {
            listen_address(text).map_err(E::custom)
        }
        fn visit_u64<E: Error>(self, port: u64) -> Result<SocketAddr, E> {
            listen_address(&port.to_string()).map_err(E::custom)
        }
        fn visit_i64<E: Error>(self, port: i64) -> Result<SocketAddr, E> {
            listen_address(&port.to_string()).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_people_write_it() {
        let read = |text: &str| listen_address(text).map(|address| address.to_string());
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("LocalHost:0", "127.0.0.1:0"),
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", ":", "localhost", "here", "127.0.0.1", "::1", "::1:8080", "localhost:http", "70000", "localhost:70000"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
