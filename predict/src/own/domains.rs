//! Which option speaks of which domain of the network.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use candle_mixed_attention::models::ab_upt::AbUptConfig;

use crate::args::{DomainFile, ModelArguments};
use crate::job::Named;

/// The domains that have options of their own.
pub(super) const SURFACE: &str = "surface";
pub(super) const VOLUME: &str = "volume";

/// Where each domain is predicted. The surface is predicted at the vertices of the geometry if nothing else is said.
pub(super) fn points(model: &ModelArguments, config: &AbUptConfig) -> Result<BTreeMap<String, Named>> {
    let mut points = by_domain("--points", &model.points, config)?;
    for (domain, file) in [(SURFACE, &model.surface), (VOLUME, &model.volume)] {
        let Some(file) = file else { continue };
        let option = format!("--{domain}");
        check_known(&option, domain, config)?;
        let named = Named::new(&option, file);
        if points.insert(domain.to_string(), named).is_some() {
            bail!("{option} and --points {domain}=… are the same; give one of them");
        }
    }
    let has_surface = config.domains.iter().any(|domain| domain.name == SURFACE);
    if let (Some(geometry), true, false) = (&model.geometry, has_surface, points.contains_key(SURFACE)) {
        let named = Named::new("--geometry", geometry);
        points.insert(SURFACE.to_string(), named);
    }
    for (domain, named) in &mut points {
        named.scale = scale(model, (named.option != "--geometry").then_some(domain));
    }
    Ok(points)
}

/// The factor of the coordinates of a domain's points, or of the geometry.
pub(crate) fn scale(model: &ModelArguments, domain: Option<&String>) -> f64 {
    model.scale.iter().filter(|given| given.domain.as_ref() == domain).map(|given| given.factor).product()
}

/// The files of an option that is given once for each domain.
pub(super) fn by_domain(option: &str, given: &[DomainFile], config: &AbUptConfig) -> Result<BTreeMap<String, Named>> {
    let mut files = BTreeMap::new();
    for DomainFile { domain, file } in given {
        check_known(option, domain, config)?;
        let named = Named::new(format!("{option} {domain}"), file);
        ensure!(files.insert(domain.clone(), named).is_none(), "{option}: domain '{domain}' is given twice");
    }
    Ok(files)
}

/// Checks that the network has a domain.
pub(super) fn check_known(option: &str, domain: &str, config: &AbUptConfig) -> Result<()> {
    let known = config.domain_names();
    ensure!(
        known.iter().any(|name| name == domain),
        "{option}: the network has no domain '{domain}', but {known:?}; --points DOMAIN=FILE takes any of them"
    );
    Ok(())
}

/// Bytes of a name at most: a file system takes 255, of which endings and other names take some.
const LONGEST_NAME: usize = 100;

/// Domains and fields give files, arrays and members of archives their names.
pub(super) fn check_file_names(config: &AbUptConfig) -> Result<()> {
    for domain in &config.domains {
        let name = &domain.name;
        let plain = name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | ' '));
        ensure!(plain, "--config: domain {name:?} cannot be the name of a file; letters, digits, _ and - can");
        check_length(&format!("domain {name:?}"), name)?;
        for field in &domain.fields {
            check_field_name(&format!("field {:?} of domain '{name}'", field.name), &field.name)?;
        }
    }
    Ok(())
}

fn check_field_name(what: &str, name: &str) -> Result<()> {
    check_length(what, name)?;
    // The header of a safetensors file keeps what is no tensor under this name.
    ensure!(name != "__metadata__", "--config: {what} cannot be the name of a tensor");
    ensure!(
        !name.contains(['/', '\\']) && !name.contains(".."),
        "--config: {what} reads as a path, which no file can have"
    );
    // Neither has a place in XML.
    let unprintable = |letter: char| letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}');
    ensure!(!name.contains(unprintable), "--config: {what} holds a control character");
    Ok(())
}

fn check_length(what: &str, name: &str) -> Result<()> {
    let length = name.len();
    ensure!(
        (1..=LONGEST_NAME).contains(&length),
        "--config: {what} has {length} bytes; 1 to {LONGEST_NAME} can be a name"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_written_are_refused() {
        let long = "x".repeat(101);
        let table = [
            ("pressure", ""),
            ("wall shear <τ> & \"p\"", ""),
            (&long[1..], ""),
            (&long[..], "has 101 bytes"),
            ("", "has 0 bytes"),
            ("__metadata__", "name of a tensor"),
            ("a/b", "reads as a path"),
            ("a\\b", "reads as a path"),
            ("..", "reads as a path"),
            ("a\0b", "control character"),
            ("a\nb", "control character"),
            ("a\u{7f}", "control character"),
            ("a\u{85}", "control character"),
            ("a\u{ffff}", "control character"),
        ];
        for (name, expected) in table {
            let message = check_field_name("field", name).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(message.is_empty(), expected.is_empty(), "{name:?}: {message}");
            assert!(message.contains(expected), "{name:?}: {message}");
        }
    }
}
