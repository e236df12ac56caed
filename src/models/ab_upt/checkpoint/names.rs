//! From the names in a file to those of the network.
//!
//! Wrappers put prefixes in front (`backbone.`, `module.`, `_orig_mod.`), and the networks of early 2026, which had
//! exactly the domains `surface` and `volume`, used other names for what is now stored by domain. Their fused projections
//! (`qkv`, `kv`) keep their names: the attention layers read them as they are.

/// What training wrappers put in front of every name.
const WRAPPERS: [&str; 3] = ["backbone.", "module.", "_orig_mod."];

/// A tensor that every network has, under no other prefix than those of wrappers.
pub(super) const ROOT_TENSOR: &str = "rope.omega";

/// Old beginnings of names and what they are now.
const RENAMED: [(&str, &str); 6] = [
    ("surface_bias.", "domain_biases.surface."),
    ("volume_bias.", "domain_biases.volume."),
    ("surface_decoder_blocks.", "domain_decoder_blocks.surface."),
    ("volume_decoder_blocks.", "domain_decoder_blocks.volume."),
    ("surface_decoder.", "domain_decoder_projections.surface."),
    ("volume_decoder.", "domain_decoder_projections.volume."),
];

/// Names of one file.
pub(super) struct Names {
    /// The prefix of a wrapper that is not known by name.
    prefix: String,
    /// Whether the file has names of the old network.
    pub old: bool,
}

impl Names {
    /// Looks at all names of a file.
    pub(super) fn new<'a>(stored: impl Iterator<Item = &'a str>) -> Self {
        let mut names = Self { prefix: String::new(), old: false };
        for name in stored {
            let bare = without_wrappers(name);
            if let Some(prefix) = bare.strip_suffix(ROOT_TENSOR) {
                names.prefix = prefix.to_string();
            }
        }
        names
    }

    /// The name in the network.
    pub(super) fn canonical(&mut self, stored: &str) -> String {
        let bare = without_wrappers(stored);
        let bare = bare.strip_prefix(self.prefix.as_str()).unwrap_or(bare);
        let renamed = RENAMED.iter().find_map(|(old, new)| Some(format!("{new}{}", bare.strip_prefix(old)?)));
        self.old |= renamed.is_some();
        renamed.unwrap_or_else(|| bare.to_string())
    }

    /// Whether a tensor that the network does not ask for is no mistake: `padding_tensor` holds only zeros, `n_averaged` is
    /// how often weights were averaged, and old
    /// networks have a geometry encoder even where nothing reads it.
    pub(super) fn is_harmless(&self, name: &str, uses_geometry: bool) -> bool {
        let geometry = name.starts_with("encoder.") || name.starts_with("geometry_blocks.");
        name.ends_with("padding_tensor") || name == "n_averaged" || (self.old && !uses_geometry && geometry)
    }
}

fn without_wrappers(mut name: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_and_old_names_are_mapped() {
        let stored = ["module._orig_mod.backbone.surface_bias.mlp.0.weight", "backbone.rope.omega"];
        let mut names = Names::new(stored.into_iter());
        assert_eq!(names.canonical(stored[0]), "domain_biases.surface.mlp.0.weight");
        assert_eq!(
            names.canonical("volume_decoder_blocks.1.mlp.fc1.bias"),
            "domain_decoder_blocks.volume.1.mlp.fc1.bias"
        );
        assert_eq!(names.canonical("surface_decoder.project.bias"), "domain_decoder_projections.surface.project.bias");
        assert!(names.old);
    }

    #[test]
    fn the_prefix_of_an_unknown_wrapper_is_found() {
        let stored = ["net.inner.rope.omega", "net.inner.pos_embed.omega"];
        let mut names = Names::new(stored.into_iter());
        assert_eq!(names.canonical(stored[1]), "pos_embed.omega");
        assert!(!names.old);
    }

    #[test]
    fn only_tensors_without_meaning_may_be_left_over() {
        let mut names = Names::new(std::iter::empty());
        assert!(names.is_harmless("encoder.pos_embed.padding_tensor", true));
        assert!(!names.is_harmless("encoder.pos_embed.omega", false));
        names.canonical("surface_bias.mlp.0.weight");
        assert!(names.is_harmless("encoder.pos_embed.omega", false));
        assert!(!names.is_harmless("encoder.pos_embed.omega", true));
    }
}
