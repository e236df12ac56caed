//! Vectors in space.

use num_traits::Float;

/// A point or a vector in space.
pub(crate) type Vec3<T = f64> = [T; 3];

pub(crate) fn add<T: Float>(a: Vec3<T>, b: Vec3<T>) -> Vec3<T> {
    std::array::from_fn(|i| a[i] + b[i])
}

pub(crate) fn sub<T: Float>(a: Vec3<T>, b: Vec3<T>) -> Vec3<T> {
    std::array::from_fn(|i| a[i] - b[i])
}

pub(crate) fn scaled<T: Float>(a: Vec3<T>, by: T) -> Vec3<T> {
    a.map(|x| x * by)
}

pub(crate) fn dot<T: Float>(a: Vec3<T>, b: Vec3<T>) -> T {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(crate) fn cross<T: Float>(a: Vec3<T>, b: Vec3<T>) -> Vec3<T> {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(crate) fn length<T: Float>(a: Vec3<T>) -> T {
    dot(a, a).sqrt()
}

/// The direction of a vector; of zero, zero.
pub(crate) fn normalised<T: Float>(a: Vec3<T>) -> Vec3<T> {
    let length = length(a).max(T::min_positive_value());
    a.map(|x| x / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_lengths() {
        let (a, b) = ([1.0, 2.0, -2.0], [3.0, 0.5, 1.0]);
        let across = cross(a, b);
        assert_eq!((dot(a, b), dot(across, a), dot(across, b)), (2.0, 0.0, 0.0));
        assert_eq!(cross([1.0f32, 0.0, 0.0], [0.0, 1.0, 0.0]), [0.0, 0.0, 1.0]);
        assert_eq!((length(a), normalised(a)), (3.0, [1.0 / 3.0, 2.0 / 3.0, -2.0 / 3.0]));
        assert_eq!(normalised([0.0f32; 3]), [0.0; 3]);
        assert_eq!(sub(add(a, b), b), scaled(a, 1.0));
    }
}
