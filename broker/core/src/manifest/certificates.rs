//! PEM certificates of a destination (`CACerts`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Checks that the text holds at least one certificate, each base64 of what begins like one.
pub(super) fn check(pem: &str) -> Result<(), &'static str> {
    let mut rest = pem;
    let mut found = false;
    while let Some(at) = rest.find(BEGIN) {
        let body = &rest[at + BEGIN.len()..];
        let end = body.find(END).ok_or("a certificate has no `-----END CERTIFICATE-----`")?;
        let encoded: String = body[..end].split_ascii_whitespace().collect();
        let decoded = STANDARD.decode(encoded).map_err(|_| "a certificate is not valid base64")?;
        // A certificate is an ASN.1 SEQUENCE.
        if decoded.first() != Some(&0x30) {
            return Err("the content between the markers is not a certificate");
        }
        found = true;
        rest = &body[end + END.len()..];
    }
    if found { Ok(()) } else { Err("it holds no `-----BEGIN CERTIFICATE-----`") }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn tells_certificates_from_other_text() {
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(check(certificate), Ok(()));
        assert_eq!(check(&format!("# two\n{certificate}{certificate}")), Ok(()));
        for wrong in [
            "",
            "MIIB",
            "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----",
            "-----BEGIN CERTIFICATE-----\nMIIB",
            "-----BEGIN CERTIFICATE-----\nM?IB\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        ] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
