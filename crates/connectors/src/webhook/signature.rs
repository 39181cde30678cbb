//! The signature of a body by HMAC-SHA256 (RFC 2104), from which a receiver knows that the sender has the secret.

use ring::hmac::{HMAC_SHA256, Key, sign};

/// Returns the signature of a body in hexadecimal digits.
pub(super) fn hmac_sha256(secret: &[u8], body: &[u8]) -> String {
    let signature = sign(&Key::new(HMAC_SHA256, secret), body);
    signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, cases 1, 2 and 6.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let cases: [(&[u8], &[u8], &str); 3] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (secret, body, expected) in cases {
            assert_eq!(hmac_sha256(secret, body), expected);
        }
    }
}
