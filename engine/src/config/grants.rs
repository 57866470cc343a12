//! The standing grants of a configuration: statements of customers that cameras of theirs be opened to somebody else for a time.
//!
//! Messages name lines, never customers or cameras.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::document::{ConfigError, Document, Root, Value};
use crate::statement::StandingGrant;
use crate::stream::registry::{Camera, Customer, Granting};
use crate::text::Plain;

/// Longest standing grant read: two public keys, a camera and a purpose.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Standing grants of one camera: their KEY entries go into one block, which a chunk's buffer must hold (16 × 1,256 B).
const PER_CAMERA_MAX: usize = 16;

/// Reads what every `customer.grants` names.
pub fn parse(
    document: &Document,
    root: &Root<'_>,
    customers: &[Customer],
    cameras: &[Camera],
) -> Result<Vec<Granting>, ConfigError> {
    let mut grants: Vec<Granting> = Vec::new();
    for (at, section) in (0u32..).zip(root.sections("customer")) {
        for value in section.get("grants").map_or(Vec::new(), |value| value.items()) {
            let grant = read(document, &value)?;
            if grant.terms.customer.signing_key() != customers[at as usize].public_key.signing_key() {
                return Err(value.error(
                    "another key than this customer's signed it: only its own customer grants a camera",
                ));
            }
            let of_customer = |camera: &Camera| camera.customer == at && *camera.id == *grant.terms.camera;
            let camera = cameras.iter().position(of_customer);
            let camera = camera
                .ok_or_else(|| value.error("this customer has no camera of the name that it grants"))?;
            let camera = u32::try_from(camera).expect("a configuration file holds fewer than 2^32 cameras");
            let others = || grants.iter().filter(|granting| granting.camera == camera);
            if others().any(|granting| granting.grant.hash() == grant.hash()) {
                return Err(value.error("it is listed twice"));
            }
            if others().count() == PER_CAMERA_MAX {
                return Err(value.error(format_args!("a camera has at most {PER_CAMERA_MAX}")));
            }
            grants.push(Granting {
                camera,
                grant: Arc::new(grant),
                entered: Arc::default(),
            });
        }
    }
    Ok(grants)
}

fn read(document: &Document, value: &Value<'_>) -> Result<StandingGrant, ConfigError> {
    let path = document.file_named(value.text()?);
    let grant = read_text(&path).and_then(|text| StandingGrant::parse(&text).map_err(|why| why.to_string()));
    grant.map_err(|why| value.error(format_args!("{}: {why}", path.display())))
}

fn read_text(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| Plain(&error).to_string())?;
    if !metadata.is_file() {
        return Err("not a file".to_owned());
    }
    let mut text = String::new();
    let file = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    file.map_err(|error| Plain(&error).to_string())?;
    Ok(text)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::statement::Terms;
    use harborseal_segment::identity::Identity;

    /// Writes the grant that the example names: of `customer` for its front door.
    pub fn write_the_example(folder: &Path, customer: &Identity) {
        let terms = Terms {
            customer: customer.public().clone(),
            grantee: customer.public().clone(),
            camera: "front-door".to_owned(),
            purpose: "the example".to_owned(),
        };
        let text = StandingGrant::make(&terms, (0, 1_000_000_000), 0, customer);
        std::fs::write(folder.join("guard.grant"), text).expect("written");
    }
}
