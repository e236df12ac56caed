//! candle's own kernels, which are left to the CPU: what each name does, as loops over memory.
//!
//! Their PTX takes nvcc longer than everything else together. Here are those that attention modules, gradients and
//! models of this crate use; others are not found.

use emulator::{DeviceMemory, Finding};

use crate::number::Number;

/// A kernel, with the types of its elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    operation: Operation,
    /// Of what is read.
    from: Number,
    /// Of what is written.
    to: Number,
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Unary(fn(f64) -> f64),
    /// With a number that all elements share.
    Parametric(fn(f64, f64) -> f64),
    Binary(fn(f64, f64) -> f64),
    Affine,
    /// Sums, or the largest, of so many elements each; where the second number is true, the first argument counts results.
    Reduce(fn(f64, f64) -> f64, f64, bool),
    /// By elements of this type.
    Where(Number),
    Select(Number),
    /// Adds rows to those that elements of this type name.
    Add(Number),
    Copy2d,
    Set,
    LayerNorm,
    Softmax,
}

/// Unary and binary functions by what stands in front of the dtype.
fn unary(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "ucopy" => |x| x,
        "uneg" => |x| -x,
        "uabs" => f64::abs,
        "urecip" => f64::recip,
        "usqr" => |x| x * x,
        "usqrt" => f64::sqrt,
        "uexp" => f64::exp,
        "ulog" => f64::ln,
        "usin" => f64::sin,
        "ucos" => f64::cos,
        "utanh" => f64::tanh,
        "urelu" => |x| x.max(0.),
        "usilu" => |x| x / (1. + (-x).exp()),
        "usigmoid" => |x| 1. / (1. + (-x).exp()),
        "ugelu_erf" => |x| 0.5 * x * (1. + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        _ => return None,
    })
}

fn parametric(name: &str) -> Option<fn(f64, f64) -> f64> {
    Some(match name {
        "uelu" => |x, alpha| if x > 0. { x } else { alpha * x.exp_m1() },
        "upowf" => f64::powf,
        _ => return None,
    })
}

fn binary(name: &str) -> Option<fn(f64, f64) -> f64> {
    Some(match name {
        "badd" => |x, y| x + y,
        "bsub" => |x, y| x - y,
        "bmul" => |x, y| x * y,
        "bdiv" => |x, y| x / y,
        "bminimum" => f64::min,
        "bmaximum" => f64::max,
        _ => return None,
    })
}

fn comparison(name: &str) -> Option<fn(f64, f64) -> f64> {
    Some(match name {
        "eq" => |x, y| f64::from(x == y),
        "ne" => |x, y| f64::from(x != y),
        "lt" => |x, y| f64::from(x < y),
        "le" => |x, y| f64::from(x <= y),
        "gt" => |x, y| f64::from(x > y),
        "ge" => |x, y| f64::from(x >= y),
        _ => return None,
    })
}

/// The error function: its series, and far out 1.
fn erf(x: f64) -> f64 {
    if x.abs() > 5. {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

impl Kernel {
    /// What a name of candle's means; nothing if it is not known.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (what, dtype) = name.rsplit_once('_')?;
        let to = Number::named(dtype)?;
        if let Some(from) = what.strip_prefix("cast_") {
            return Some(Self { operation: Operation::Unary(|x| x), from: Number::named(from)?, to });
        }
        let by = |prefix: &str| what.strip_prefix(prefix).and_then(Number::named);
        let simple = match what {
            "affine" => Some(Operation::Affine),
            "copy2d" => Some(Operation::Copy2d),
            "const_set" => Some(Operation::Set),
            "layernorm" => Some(Operation::LayerNorm),
            "softmax" => Some(Operation::Softmax),
            "fast_sum" => Some(Operation::Reduce(|x, y| x + y, 0., false)),
            "fast_sum_small" => Some(Operation::Reduce(|x, y| x + y, 0., true)),
            "fast_max" => Some(Operation::Reduce(f64::max, f64::NEG_INFINITY, false)),
            "fast_min" => Some(Operation::Reduce(f64::min, f64::INFINITY, false)),
            _ => None,
        };
        if let Some(function) = comparison(what) {
            return Some(Self { operation: Operation::Binary(function), from: to, to: Number::U8 });
        }
        let operation = simple
            .or_else(|| unary(what).map(Operation::Unary))
            .or_else(|| parametric(what).map(Operation::Parametric))
            .or_else(|| binary(what).map(Operation::Binary))
            .or_else(|| by("where_").map(Operation::Where))
            .or_else(|| by("is_").map(Operation::Select))
            .or_else(|| by("ia_").map(Operation::Add))?;
        Some(Self { operation, from: to, to })
    }

    /// Bytes of each parameter.
    fn parameter_bytes(&self) -> Vec<usize> {
        let element = self.from.bytes();
        match self.operation {
            Operation::Unary(_) => vec![8; 5],
            Operation::Binary(_) | Operation::Reduce(..) => vec![8; 6],
            Operation::Parametric(_) => vec![8, 8, 8, element, 8, 8],
            Operation::Affine => [vec![8; 5], vec![element; 2]].concat(),
            Operation::Where(_) => vec![8; 7],
            Operation::Select(_) => vec![8; 10],
            Operation::Add(_) => vec![8; 8],
            Operation::Copy2d => vec![8, 8, 4, 4, 4, 4],
            Operation::Set => vec![8, 8, 8, element, 8],
            Operation::LayerNorm => vec![8, 8, 8, 8, 4, 4, 4],
            Operation::Softmax => vec![8, 8, 4],
        }
    }

    /// Where parameters lie, and how long they are.
    pub(crate) fn parameters(&self) -> Vec<(usize, usize)> {
        let mut end = 0usize;
        let place = |bytes: usize| {
            let offset = end.next_multiple_of(bytes);
            end = offset + bytes;
            (offset, bytes)
        };
        self.parameter_bytes().into_iter().map(place).collect()
    }

    /// Runs a launch of so many blocks and threads.
    pub(crate) fn run(&self, memory: &mut DeviceMemory, rows: usize, arguments: &[u8]) -> Result<(), Finding> {
        let parameters = self.parameters();
        let bits = |index: usize| {
            let (offset, bytes) = parameters[index];
            arguments[offset..offset + bytes].iter().rev().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte))
        };
        let count = |index: usize| bits(index) as usize;
        let scalar = |index: usize| self.from.decode(&arguments[parameters[index].0..]);
        let (from, to) = (self.from, self.to);
        match self.operation {
            Operation::Unary(function) => {
                let places = Layout::read(memory, bits(2), count(1), 1)?.places(0, count(0));
                let values: Vec<f64> = from.read(memory, bits(3), &places)?.into_iter().map(function).collect();
                to.write(memory, bits(4), &values)
            }
            Operation::Parametric(function) => {
                let places = Layout::read(memory, bits(2), count(1), 1)?.places(0, count(0));
                let parameter = scalar(3);
                let values = from.read(memory, bits(4), &places)?;
                let values: Vec<f64> = values.into_iter().map(|x| function(x, parameter)).collect();
                to.write(memory, bits(5), &values)
            }
            Operation::Affine => {
                let places = Layout::read(memory, bits(2), count(1), 1)?.places(0, count(0));
                let (factor, offset) = (scalar(5), scalar(6));
                let values = from.read(memory, bits(3), &places)?;
                let values: Vec<f64> = values.into_iter().map(|x| x * factor + offset).collect();
                to.write(memory, bits(4), &values)
            }
            Operation::Binary(function) => {
                let layout = Layout::read(memory, bits(2), count(1), 2)?;
                let left = from.read(memory, bits(3), &layout.places(0, count(0)))?;
                let right = from.read(memory, bits(4), &layout.places(1, count(0)))?;
                let values: Vec<f64> = left.into_iter().zip(right).map(|(x, y)| function(x, y)).collect();
                to.write(memory, bits(5), &values)
            }
            Operation::Reduce(function, first, counts_results) => {
                let each = count(1);
                let total = if counts_results { count(0) * each } else { count(0) };
                let places = Layout::read(memory, bits(3), count(2), 1)?.places(0, total);
                let values = from.read(memory, bits(4), &places)?;
                let results = if each == 0 { vec![first; rows] } else { Vec::new() };
                let groups = values.chunks(each.max(1)).map(|group| group.iter().copied().fold(first, function));
                let results: Vec<f64> = results.into_iter().chain(groups).collect();
                to.write(memory, bits(5), &results)
            }
            Operation::Where(condition) => {
                let layout = Layout::read(memory, bits(2), count(1), 3)?;
                let conditions = condition.read(memory, bits(3), &layout.places(0, count(0)))?;
                let yes = from.read(memory, bits(4), &layout.places(1, count(0)))?;
                let no = from.read(memory, bits(5), &layout.places(2, count(0)))?;
                let choose = |((condition, yes), no): ((f64, f64), f64)| if condition != 0. { yes } else { no };
                let values: Vec<f64> = conditions.into_iter().zip(yes).zip(no).map(choose).collect();
                to.write(memory, bits(6), &values)
            }
            Operation::Select(index) => {
                let [source, ids, right] = [count(7), count(8), count(9)];
                let dense: Vec<usize> = (0..ids).collect();
                let chosen = index.read(memory, bits(3), &dense)?;
                let place = |result: usize| {
                    let id = chosen[result / right % ids] as usize;
                    (result / (ids * right) * source + id) * right + result % right
                };
                let places: Vec<usize> = (0..count(0)).map(place).collect();
                let values = from.read(memory, bits(4), &places)?;
                to.write(memory, bits(5), &values)
            }
            Operation::Add(index) => {
                let [ids, left, target, right] = [count(1), count(4), count(6), count(7)];
                let dense = |count: usize| (0..count).collect::<Vec<_>>();
                let chosen = index.read(memory, bits(0), &dense(ids))?;
                let added = from.read(memory, bits(2), &dense(left * ids * right))?;
                let mut sums = from.read(memory, bits(3), &dense(left * target * right))?;
                for (place, value) in added.into_iter().enumerate() {
                    let row = chosen[place / right % ids] as usize;
                    sums[(place / (ids * right) * target + row) * right + place % right] += value;
                }
                to.write(memory, bits(3), &sums)
            }
            Operation::Copy2d => (0..count(2)).try_for_each(|row| {
                let bytes = from.bytes();
                let copied = memory.read(bits(0) + (row * count(4) * bytes) as u64, count(3) * bytes)?;
                memory.write(bits(1) + (row * count(5) * bytes) as u64, &copied)
            }),
            Operation::Set => {
                let value = from.encode(scalar(3));
                let places = Layout::read(memory, bits(2), count(1), 1)?.places(0, count(0));
                places.iter().try_for_each(|place| memory.write(bits(4) + (place * from.bytes()) as u64, &value))
            }
            Operation::LayerNorm => {
                let columns = count(4);
                let epsilon = f64::from(f32::from_bits(bits(6) as u32));
                let weights = |memory: &DeviceMemory, address: u64| {
                    let dense: Vec<usize> = (0..columns).collect();
                    if address == 0 { Ok(None) } else { from.read(memory, address, &dense).map(Some) }
                };
                let (scale, offset) = (weights(memory, bits(2))?, weights(memory, bits(3))?);
                by_rows(memory, from, rows, columns, (bits(0), bits(1)), |row| {
                    let mean = row.iter().sum::<f64>() / columns as f64;
                    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / columns as f64;
                    let inverse = (variance + epsilon).sqrt().recip();
                    for (column, x) in row.iter_mut().enumerate() {
                        let normal = (*x - mean) * inverse;
                        *x = normal * scale.as_ref().map_or(1., |scale| scale[column])
                            + offset.as_ref().map_or(0., |offset| offset[column]);
                    }
                })
            }
            Operation::Softmax => by_rows(memory, from, rows, count(2), (bits(0), bits(1)), |row| {
                let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                row.iter_mut().for_each(|x| *x = (*x - largest).exp());
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }),
        }
    }
}

/// Changes rows of so many columns on their way from one address to another.
fn by_rows(
    memory: &mut DeviceMemory,
    number: Number,
    rows: usize,
    columns: usize,
    (from, to): (u64, u64),
    change: impl Fn(&mut [f64]),
) -> Result<(), Finding> {
    let dense: Vec<usize> = (0..rows * columns).collect();
    let mut values = number.read(memory, from, &dense)?;
    values.chunks_mut(columns.max(1)).for_each(change);
    number.write(memory, to, &values)
}

/// Sizes and strides, as candle uploads them; without axes where everything lies one after the other.
struct Layout {
    sizes: Vec<usize>,
    /// Of each operand.
    strides: Vec<Vec<usize>>,
}

impl Layout {
    fn read(memory: &DeviceMemory, address: u64, axes: usize, operands: usize) -> Result<Self, Finding> {
        if address == 0 {
            return Ok(Self { sizes: Vec::new(), strides: Vec::new() });
        }
        let words = memory.read(address, axes * (1 + operands) * size_of::<u64>())?;
        let words: Vec<usize> = words.chunks(8).map(|word| Number::I64.decode(word) as usize).collect();
        let (sizes, strides) = words.split_at(axes);
        let strides = (0..operands).map(|operand| strides[operand * axes..][..axes].to_vec()).collect();
        Ok(Self { sizes: sizes.to_vec(), strides })
    }

    /// Where the first elements of an operand lie.
    fn places(&self, operand: usize, count: usize) -> Vec<usize> {
        let Some(strides) = self.strides.get(operand) else { return (0..count).collect() };
        let place = |mut index: usize| {
            let mut place = 0;
            for (size, stride) in self.sizes.iter().zip(strides).rev() {
                place += index % size * stride;
                index /= size;
            }
            place
        };
        (0..count).map(place).collect()
    }
}
