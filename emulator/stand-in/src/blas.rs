//! cuBLAS: handles, and products of matrices as plain sums.

use std::ffi::c_void;
use std::sync::Arc;

use emulator::{DeviceMemory, Finding};

use crate::driver::{Driver, Handle};
use crate::entries::{entries, give};
use crate::failure::{Failure, Outcome};
use crate::number::Number;
use crate::step::Step;

/// A matrix of a batch: column by column, as cuBLAS has them.
#[derive(Clone, Copy)]
struct Matrices {
    address: u64,
    number: Number,
    /// Whether rows and columns have changed places.
    transposed: bool,
    /// Elements from column to column.
    leading: usize,
    /// Elements from matrix to matrix.
    stride: usize,
}

/// c := factor · a · b + old · c, for each matrix of a batch.
struct Product {
    sizes: [usize; 3],
    factor: f64,
    old: f64,
    a: Matrices,
    b: Matrices,
    c: Matrices,
    batch: usize,
}

impl Matrices {
    fn place(&self, matrix: usize, row: usize, column: usize) -> usize {
        let (row, column) = if self.transposed { (column, row) } else { (row, column) };
        matrix * self.stride + column * self.leading + row
    }

    /// One matrix, row by row.
    fn read(&self, memory: &DeviceMemory, matrix: usize, rows: usize, columns: usize) -> Result<Vec<f64>, Finding> {
        let places: Vec<usize> =
            (0..rows * columns).map(|index| self.place(matrix, index / columns, index % columns)).collect();
        let (Some(first), Some(last)) = (places.iter().min(), places.iter().max()) else { return Ok(Vec::new()) };
        let bytes = self.number.bytes();
        // One read where there are no gaps that nobody may have written.
        if last + 1 - first == places.len() {
            let all = memory.read(self.address + (first * bytes) as u64, places.len() * bytes)?;
            return Ok(places.iter().map(|place| self.number.decode(&all[(place - first) * bytes..])).collect());
        }
        self.number.read(memory, self.address, &places)
    }
}

impl Product {
    fn run(&self, memory: &mut DeviceMemory) -> Result<(), Finding> {
        let [m, n, k] = self.sizes;
        let bytes = self.c.number.bytes();
        for matrix in 0..self.batch {
            let a = self.a.read(memory, matrix, m, k)?;
            let b = self.b.read(memory, matrix, k, n)?;
            let old = if self.old == 0. { vec![0.; m * n] } else { self.c.read(memory, matrix, m, n)? };
            for column in 0..n {
                let value = |row: usize| {
                    let sum: f64 = (0..k).map(|inner| a[row * k + inner] * b[inner * n + column]).sum();
                    self.factor * sum + self.old * old[row * n + column]
                };
                let column_of_c: Vec<f64> = (0..m).map(value).collect();
                let address = self.c.address + (self.c.place(matrix, 0, column) * bytes) as u64;
                self.c.number.write(memory, address, &column_of_c)?;
            }
        }
        Ok(())
    }
}

/// An element type by its number in `library_types.h`.
fn number(data_type: u32) -> Outcome<Number> {
    Ok(match data_type {
        0 => Number::F32,
        1 => Number::F64,
        2 => Number::F16,
        14 => Number::Bf16,
        _ => return Err(Failure::NOT_SUPPORTED),
    })
}

/// Numbers of the types in which factors are given.
const COMPUTE_16F: [u32; 2] = [64, 65];
const COMPUTE_64F: [u32; 2] = [70, 71];

/// A factor in the type that a product is computed in.
///
/// # Safety
/// There is one.
unsafe fn factor(pointer: *const c_void, compute: u32) -> f64 {
    let number = match compute {
        _ if COMPUTE_16F.contains(&compute) => Number::F16,
        _ if COMPUTE_64F.contains(&compute) => Number::F64,
        _ => Number::F32,
    };
    // SAFETY: the caller vouches for it.
    number.decode(unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), number.bytes()) })
}

fn start(driver: &mut Driver, handle: Handle, product: Product) -> Outcome {
    let &(device, stream) = driver.tools.get(&(handle as u64)).ok_or(Failure::INVALID_HANDLE)?;
    let stream = driver.stream(stream as Handle);
    driver.calls.count_launch("product");
    let device = &mut driver.devices[device];
    device.check()?;
    device.enqueue(stream, Step::Work(Arc::new(move |memory| product.run(memory))))
}

entries! {
    fn cublasCreate_v2(handle: *mut Handle) |driver, handle| driver.new_tool(handle)

    fn cublasDestroy_v2(handle: Handle) |driver, handle| driver.drop_tool(handle)

    fn cublasSetStream_v2(handle: Handle, stream: Handle) |driver, handle, stream| driver.move_tool(handle, stream)

    fn cublasGemmStridedBatchedEx(
        handle: Handle,
        transpose_a: u32,
        transpose_b: u32,
        m: i32,
        n: i32,
        k: i32,
        alpha: *const c_void,
        a: u64,
        a_type: u32,
        a_leading: i32,
        a_stride: i64,
        b: u64,
        b_type: u32,
        b_leading: i32,
        b_stride: i64,
        beta: *const c_void,
        c: u64,
        c_type: u32,
        c_leading: i32,
        c_stride: i64,
        batch: i32,
        compute: u32,
        _algorithm: i32,
    ) |driver, handle, transpose_a, transpose_b, m, n, k, alpha, a, a_type, a_leading, a_stride, b, b_type, b_leading,
       b_stride, beta, c, c_type, c_leading, c_stride, batch, compute, _| {
        let matrices = |address, data_type, transposed, leading: i32, stride: i64| {
            let number = number(data_type)?;
            Ok(Matrices { address, number, transposed, leading: leading as usize, stride: stride as usize })
        };
        start(driver, handle, Product {
            sizes: [m as usize, n as usize, k as usize],
            factor: factor(alpha, compute),
            old: factor(beta, compute),
            a: matrices(a, a_type, transpose_a != 0, a_leading, a_stride)?,
            b: matrices(b, b_type, transpose_b != 0, b_leading, b_stride)?,
            c: matrices(c, c_type, false, c_leading, c_stride)?,
            batch: batch as usize,
        })
    }

    fn cublasDgemmStridedBatched(
        handle: Handle,
        transpose_a: u32,
        transpose_b: u32,
        m: i32,
        n: i32,
        k: i32,
        alpha: *const f64,
        a: u64,
        a_leading: i32,
        a_stride: i64,
        b: u64,
        b_leading: i32,
        b_stride: i64,
        beta: *const f64,
        c: u64,
        c_leading: i32,
        c_stride: i64,
        batch: i32,
    ) |driver, handle, transpose_a, transpose_b, m, n, k, alpha, a, a_leading, a_stride, b, b_leading, b_stride, beta, c,
       c_leading, c_stride, batch| {
        let matrices = |address, transposed, leading: i32, stride: i64| Matrices {
            address,
            number: Number::F64,
            transposed,
            leading: leading as usize,
            stride: stride as usize,
        };
        start(driver, handle, Product {
            sizes: [m as usize, n as usize, k as usize],
            factor: *alpha,
            old: *beta,
            a: matrices(a, transpose_a != 0, a_leading, a_stride),
            b: matrices(b, transpose_b != 0, b_leading, b_stride),
            c: matrices(c, false, c_leading, c_stride),
            batch: batch as usize,
        })
    }
}

impl Driver {
    /// A handle of a library, which works on the legacy stream of the current device until it is told another.
    ///
    /// # Safety
    /// The handle may be written.
    pub(crate) unsafe fn new_tool(&mut self, handle: *mut Handle) -> Outcome {
        let (device, _) = self.current()?;
        let number = self.new_handle();
        self.tools.insert(number, (device, 0));
        // SAFETY: the caller vouches for it.
        unsafe { give(handle, number as Handle) }
    }

    pub(crate) fn drop_tool(&mut self, handle: Handle) -> Outcome {
        self.tools.remove(&(handle as u64)).map(drop).ok_or(Failure::INVALID_HANDLE)
    }

    pub(crate) fn move_tool(&mut self, handle: Handle, stream: Handle) -> Outcome {
        self.tools.get_mut(&(handle as u64)).ok_or(Failure::INVALID_HANDLE)?.1 = stream as u64;
        Ok(())
    }
}
