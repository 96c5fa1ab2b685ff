//! Parses one JWK (RFC 7517, RFC 7518 section 6) as leniently as the npm package `jose` does: members that are null or
//! empty are treated as absent. Numbers may have too many leading zeros, and the coordinates of `EC` keys also too few.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::ed25519::is_of_small_order;
use super::{Alg, Family, Key, Material, UnusableKey};
use crate::json::{Object, Value};
use crate::session::formats::any_base64;
use crate::session::formats::shown::shown;

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// The RSA exponents that aws-lc accepts. With exponent 1, anyone could forge signatures.
const RSA_EXPONENTS: std::ops::Range<u64> = 3..1 << 33;
/// The members of a JWK that hold private or secret key material (RFC 7518, section 6).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Parses a JWK that may verify signatures.
pub(super) fn parse(jwk: &Value) -> Result<Key, UnusableKey> {
    let unusable = |kid: Option<&str>, why| UnusableKey {
        kid: kid.map(str::to_owned),
        why,
        is_for_other_use: false,
    };
    let jwk = jwk.as_object().map(Members);
    let jwk = jwk.ok_or_else(|| unusable(None, "it is not a JSON object".to_owned()))?;
    let kid = jwk.text("kid").map_err(|why| unusable(None, why))?;
    let usage = jwk.text("use").map_err(|why| unusable(kid, why))?;
    if let Some(usage) = usage.filter(|usage| *usage != "sig") {
        return Err(UnusableKey {
            is_for_other_use: true,
            ..unusable(kid, format!("its use is {}, not sig", shown(usage)))
        });
    }
    jwk.key(kid).map_err(|why| unusable(kid, why))
}

/// The members of a JWK.
struct Members<'a>(&'a Object);

impl<'a> Members<'a> {
    /// The member `name`; `None` if it is absent, null or empty. A duplicate member is an error.
    fn get(&self, name: &str) -> Result<Option<&'a Value>, String> {
        let value = self.0.get(name);
        let value = value.map_err(|_| format!("it has {name} twice"))?;
        Ok(value.filter(|value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(object) => object.iter().next().is_some(),
            Value::Bool(_) | Value::Number(_) => true,
        }))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        match self.get(name)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("its {name} is not a string")),
        }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, String> {
        let text = self
            .text(name)?
            .ok_or_else(|| format!("it has no {name}"))?;
        any_base64::decode(text.as_bytes()).ok_or_else(|| format!("its {name} is not base64url"))
    }

    /// The bytes of the unsigned integer in the member `name`, without leading zeros.
    fn integer(&self, name: &str) -> Result<Vec<u8>, String> {
        let bytes = self.bytes(name)?;
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        Ok(bytes[zeros..].to_vec())
    }

    fn key(&self, kid: Option<&str>) -> Result<Key, String> {
        let kty = self.text("kty")?.ok_or("it has no kty")?;
        if kty == "oct" {
            return Err(
                "it is a shared secret (kty is oct): use `secret`, and never publish it".to_owned(),
            );
        }
        for name in PRIVATE_MEMBERS {
            if self.get(name)?.is_some() {
                return Err(format!(
                    "it has the private member {name}: publish the public key only"
                ));
            }
        }
        self.check_operations()?;
        let only = self.algorithm()?;
        let (family, public) = match (kty, self.text("crv")?) {
            ("RSA", _) => (Family::Rsa, self.rsa()?),
            ("EC", Some("P-256")) => (Family::P256, self.ec(32, &ECDSA_P256_SHA256_FIXED)?),
            ("EC", Some("P-384")) => (Family::P384, self.ec(48, &ECDSA_P384_SHA384_FIXED)?),
            ("OKP", Some("Ed25519")) => (Family::Ed25519, self.ed25519()?),
            ("EC" | "OKP", Some(curve)) => {
                return Err(format!("the curve {} is not supported", shown(curve)));
            }
            ("EC" | "OKP", None) => return Err("it has no crv".to_owned()),
            (kty, _) => return Err(format!("the key type {} is not supported", shown(kty))),
        };
        Ok(Key {
            kid: kid.map(str::to_owned),
            family,
            only,
            issuer: self.text("issuer")?.map(str::to_owned),
            material: Material::Public(public),
        })
    }

    fn check_operations(&self) -> Result<(), String> {
        let is_verify = |name: &Value| name.as_str() == Some("verify");
        match self.get("key_ops")? {
            None => Ok(()),
            Some(Value::Array(operations)) if operations.iter().any(is_verify) => Ok(()),
            Some(_) => Err("its key_ops is not a list that contains verify".to_owned()),
        }
    }

    fn algorithm(&self) -> Result<Option<Algorithm>, String> {
        let Some(name) = self.text("alg")? else {
            return Ok(None);
        };
        let alg =
            Alg::named(name).ok_or_else(|| format!("its alg {} is not supported", shown(name)))?;
        Ok(Some(alg.algorithm))
    }

    fn rsa(&self) -> Result<DecodingKey, String> {
        let (n, e) = (self.integer("n")?, self.integer("e")?);
        let bits = n
            .first()
            .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(format!(
                "it has {bits} bits, and an RSA key must have 2048 to 4096"
            ));
        }
        let exponent = e
            .iter()
            .fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        if e.len() > 5 || !RSA_EXPONENTS.contains(&exponent) || exponent.is_multiple_of(2) {
            return Err("its e is not an odd number from 3 to 2^33".to_owned());
        }
        Ok(DecodingKey::from_rsa_raw_components(&n, &e))
    }

    /// Creates a key from the two coordinates of a point, each of `length` bytes (uncompressed form, SEC 1, section
    /// 2.3.3). Refuses a point that is not on the curve: a fetched set with only such keys is then an error, and the
    /// cached keys stay in use.
    fn ec(
        &self,
        length: usize,
        curve: &'static EcdsaVerificationAlgorithm,
    ) -> Result<DecodingKey, String> {
        let mut point = vec![4];
        for name in ["x", "y"] {
            let coordinate = self.integer(name)?;
            let zeros = length
                .checked_sub(coordinate.len())
                .ok_or_else(|| format!("its {name} is longer than {length} bytes"))?;
            point.extend(std::iter::repeat_n(0, zeros));
            point.extend(coordinate);
        }
        match ParsedPublicKey::new(curve, &point) {
            Ok(_) => Ok(DecodingKey::from_ec_der(&point)),
            Err(_) => Err("its x and y are not a point on the curve".to_owned()),
        }
    }

    fn ed25519(&self) -> Result<DecodingKey, String> {
        let point: [u8; 32] = self
            .bytes("x")?
            .try_into()
            .map_err(|_| "its x does not have 32 bytes")?;
        if is_of_small_order(&point) {
            return Err(
                "its x is a point of small order, for which anyone can forge signatures".to_owned(),
            );
        }
        Ok(DecodingKey::from_ed_der(&point))
    }
}
