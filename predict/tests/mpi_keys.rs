//! Keys that lie on several ranks of MPI: a layer gives what it gives with all of them on one.

#![cfg(feature = "mpi")]

use std::process::{Command, Stdio};

use candle_mixed_attention::candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPart, AttentionPattern, AttentionPlan, KeyExchange, KvCache, MixedAttention,
    MixedAttentionConfig, TokenSpec,
};
use candle_nn::VarBuilder;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const WIDTH: usize = 64;
const HEADS: usize = 4;
const KEYS: usize = 201;

/// Parts go through the memory of the host, in f32.
struct Ranks<'a>(&'a SimpleCommunicator);

impl Ranks<'_> {
    fn gather_tensor(&self, own: &Tensor) -> Result<Vec<Tensor>> {
        let numbers = own.flatten_all()?.to_vec1::<f32>()?;
        let mut all = vec![0_f32; numbers.len() * self.0.size() as usize];
        self.0.all_gather_into(&numbers[..], &mut all[..]);
        all.chunks(numbers.len()).map(|part| Tensor::from_slice(part, own.shape(), own.device())).collect()
    }
}

impl KeyExchange for Ranks<'_> {
    fn gather(&self, own: AttentionPart) -> Result<Vec<AttentionPart>> {
        let (outputs, sums) = (self.gather_tensor(&own.output)?, self.gather_tensor(&own.log_sum_exp)?);
        Ok(outputs.into_iter().zip(sums).map(|(output, log_sum_exp)| AttentionPart { output, log_sum_exp }).collect())
    }
}

#[test]
fn keys_on_two_and_four_ranks_are_those_of_one() {
    for ranks in ["2", "4"] {
        let mut command = Command::new("mpirun");
        command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", ranks]);
        command.arg(std::env::current_exe().unwrap()).args(["--exact", "rank", "--ignored"]);
        command.env("RAYON_NUM_THREADS", "1").env("MPIEXEC_TIMEOUT", "60");
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{ranks} ranks: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
#[ignore = "what each rank that the test above starts does"]
fn rank() {
    let universe = mpi::initialize().unwrap();
    let world = universe.world();
    let (rank, size) = (world.rank() as usize, world.size() as usize);
    assert!(size > 1, "no rank was started beside this one");

    let mut random = StdRng::seed_from_u64(3);
    let mut tensor = |shape: &[usize], scale: f32| {
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| scale * random.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    };
    let weights = ["q", "k", "v", "proj"].into_iter().flat_map(|name| {
        [(format!("{name}.weight"), tensor(&[WIDTH, WIDTH], 0.3)), (format!("{name}.bias"), tensor(&[WIDTH], 0.3))]
    });
    let weights = VarBuilder::from_tensors(weights.collect(), DType::F32, &Device::Cpu);
    let layer = MixedAttention::new(&MixedAttentionConfig::new(WIDTH, HEADS), weights).unwrap();
    let x = tensor(&[1, 50, WIDTH], 1.0);
    let [keys, values] = [(); 2].map(|()| tensor(&[1, HEADS, KEYS, WIDTH / HEADS], 2.0));
    let shard = |keys_from: usize, keys_to: usize| {
        let cut = |tensor: &Tensor| tensor.narrow(2, keys_from, keys_to - keys_from).unwrap();
        KvCache::from_groups([("anchors", cut(&keys), cut(&values))], None).unwrap()
    };
    let plan = AttentionPlan::new(
        [TokenSpec::new("queries", 50), TokenSpec::cached("anchors")],
        [AttentionPattern::queries(["queries"]).attend_to(["anchors"])],
    )
    .unwrap();
    let options = AttentionOptions::default();
    let whole = layer.forward_from_cache(&x, &plan, &shard(0, KEYS), &options).unwrap();
    let own = shard(rank * KEYS / size, (rank + 1) * KEYS / size);
    let together = layer.forward_from_shard(&x, &plan, &own, &options, &Ranks(&world)).unwrap();
    let difference = (together - whole).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    // A rank that ended by a panic would leave the others waiting.
    if difference >= 1e-6 || difference.is_nan() {
        eprintln!("rank {rank} of {size}: {difference}");
        world.abort(1);
    }
}
