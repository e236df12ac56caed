//! What JSON may leave out.

pub(super) fn position_dim() -> usize {
    3
}

pub(super) fn max_wavelength() -> f64 {
    10_000.0
}

pub(super) fn bias() -> bool {
    true
}

pub(super) fn layer_norm_eps() -> f64 {
    1e-6
}

pub(super) fn max_degree() -> usize {
    32
}

pub(super) fn readd_supernode_pos() -> bool {
    true
}
