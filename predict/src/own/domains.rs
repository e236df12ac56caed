//! Which option speaks of which domain of the network.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use candle_mixed_attention::models::ab_upt::AbUptConfig;

use crate::args::{DomainFile, ModelArguments};
use crate::job::Named;

/// The domains that have options of their own.
pub const SURFACE: &str = "surface";
pub const VOLUME: &str = "volume";

/// Where each domain is predicted. The surface is predicted at the vertices of the geometry if nothing else is said.
pub fn points(model: &ModelArguments, config: &AbUptConfig) -> Result<BTreeMap<String, Named>> {
    let mut points = by_domain("--points", &model.points, config)?;
    for (domain, file) in [(SURFACE, &model.surface), (VOLUME, &model.volume)] {
        let Some(file) = file else { continue };
        let option = format!("--{domain}");
        check_known(&option, domain, config)?;
        let named = Named { option: option.clone(), file: file.clone() };
        if points.insert(domain.to_string(), named).is_some() {
            bail!("{option} and --points {domain}=… are the same; give one of them");
        }
    }
    let has_surface = config.domains.iter().any(|domain| domain.name == SURFACE);
    if let (Some(geometry), true, false) = (&model.geometry, has_surface, points.contains_key(SURFACE)) {
        let named = Named { option: "--geometry".to_string(), file: geometry.clone() };
        points.insert(SURFACE.to_string(), named);
    }
    Ok(points)
}

/// The files of an option that is given once for each domain.
pub fn by_domain(option: &str, given: &[DomainFile], config: &AbUptConfig) -> Result<BTreeMap<String, Named>> {
    let mut files = BTreeMap::new();
    for DomainFile { domain, file } in given {
        check_known(option, domain, config)?;
        let named = Named { option: format!("{option} {domain}"), file: file.clone() };
        ensure!(files.insert(domain.clone(), named).is_none(), "{option}: domain '{domain}' is given twice");
    }
    Ok(files)
}

/// Checks that the network has a domain.
pub fn check_known(option: &str, domain: &str, config: &AbUptConfig) -> Result<()> {
    let known = config.domain_names();
    ensure!(
        known.iter().any(|name| name == domain),
        "{option}: the network has no domain '{domain}', but {known:?}; --points DOMAIN=FILE takes any of them"
    );
    Ok(())
}

/// Domains give files their names.
pub fn check_file_names(config: &AbUptConfig) -> Result<()> {
    for domain in config.domain_names() {
        let plain = domain.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | ' '));
        ensure!(plain, "--config: domain '{domain}' cannot be the name of a file; letters, digits, _ and - can");
    }
    Ok(())
}
