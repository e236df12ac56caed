//! Keys that lie on several ranks of MPI: a layer gives what it gives with all of them on one.

#![cfg(feature = "mpi")]

use std::process::{Command, Stdio};
use std::sync::Arc;

use candle_mixed_attention::candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptConfig, AbUptInput, Checkpoint, Geometry};
use candle_mixed_attention::{
    AttentionOptions, AttentionPart, AttentionPattern, AttentionPlan, KeyExchange, KvCache, MixedAttention,
    MixedAttentionConfig, TokenSpec,
};
use candle_nn::VarBuilder;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

const WIDTH: usize = 64;
const HEADS: usize = 4;
const KEYS: usize = 201;

/// All ranks. Parts go through the memory of the host, in f32.
#[derive(Debug)]
struct Ranks;

impl Ranks {
    fn gather_tensor(&self, own: &Tensor) -> Result<Vec<Tensor>> {
        let numbers = own.flatten_all()?.to_vec1::<f32>()?;
        let mut all = vec![0_f32; numbers.len() * self.ranks()];
        SimpleCommunicator::world().all_gather_into(&numbers[..], &mut all[..]);
        all.chunks(numbers.len()).map(|part| Tensor::from_slice(part, own.shape(), own.device())).collect()
    }
}

impl KeyExchange for Ranks {
    fn rank(&self) -> usize {
        SimpleCommunicator::world().rank() as usize
    }

    fn ranks(&self) -> usize {
        SimpleCommunicator::world().size() as usize
    }

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
        command.env("RAYON_NUM_THREADS", "1").env("MPIEXEC_TIMEOUT", "300");
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

    let worst = layer_difference(rank, size).max(network_difference());
    // A rank that ended by a panic would leave the others waiting.
    if worst >= 1e-6 || worst.is_nan() {
        eprintln!("rank {rank} of {size}: {worst}");
        world.abort(1);
    }
}

/// Random numbers, the same on each rank.
struct Numbers(StdRng);

impl Numbers {
    fn tensor(&mut self, shape: &[usize], scale: f32) -> Tensor {
        let numbers = (0..shape.iter().product()).map(|_| scale * self.0.random_range(-1.0..1.0)).collect();
        Tensor::from_vec::<_, f32>(numbers, shape, &Device::Cpu).unwrap()
    }
}

/// The largest difference, as a share of the largest number.
fn difference(got: &Tensor, want: &Tensor) -> f32 {
    let largest = |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    largest(&(got - want).unwrap()) / largest(want)
}

/// A layer that looks at a shard of the keys, beside one that looks at all.
fn layer_difference(rank: usize, size: usize) -> f32 {
    let mut random = Numbers(StdRng::seed_from_u64(3));
    let weights = ["q", "k", "v", "proj"].into_iter().flat_map(|name| {
        let [weight, bias] = [&[WIDTH, WIDTH][..], &[WIDTH]].map(|shape| random.tensor(shape, 0.3));
        [(format!("{name}.weight"), weight), (format!("{name}.bias"), bias)]
    });
    let weights = VarBuilder::from_tensors(weights.collect(), DType::F32, &Device::Cpu);
    let layer = MixedAttention::new(&MixedAttentionConfig::new(WIDTH, HEADS), weights).unwrap();
    let x = random.tensor(&[1, 50, WIDTH], 1.0);
    let [keys, values] = [(); 2].map(|()| random.tensor(&[1, HEADS, KEYS, WIDTH / HEADS], 2.0));
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
    let together = layer.forward_from_shard(&x, &plan, &own, &options, &Ranks).unwrap();
    difference(&together, &whole)
}

/// Both passes of the network of the demo, whose anchors lie on all ranks, beside those of one.
fn network_difference() -> f32 {
    let mut random = Numbers(StdRng::seed_from_u64(5));
    let config = AbUptConfig::read(format!("{DATA}/ellipsoid.json")).unwrap();
    let checkpoint = Checkpoint::open(format!("{DATA}/ellipsoid.safetensors")).unwrap();
    let alone = checkpoint.load(&config, DType::F32, &Device::Cpu).unwrap();
    let supernodes: Vec<u32> = (0..40).collect();
    let angle = Tensor::new(&[0.3_f32], &Device::Cpu).unwrap();
    let mut points = |count: usize| (random.tensor(&[1, count, 3], 2.0) + 5.0).unwrap();
    let input = AbUptInput::new()
        .geometry(&Geometry::new(&points(200).squeeze(0).unwrap(), &supernodes).unwrap())
        .condition("alpha", &angle)
        .condition("beta", &angle)
        .anchors("surface", &points(151))
        .anchors("volume", &points(90));
    let queries = points(70);
    let both = |network: &AbUpt| {
        let first = network.forward(&input).unwrap();
        let later = network.forward_from_cache([("volume", queries.clone())], &first.cache).unwrap();
        let fields = first.fields.iter().chain(later.iter()).map(|(_, values)| values.clone());
        fields.filter(|values| values.elem_count() > 0).collect::<Vec<_>>()
    };
    let (whole, together) = (both(&alone), both(&alone.clone().with_exchange(Arc::new(Ranks))));
    assert_eq!(whole.len(), together.len());
    together.iter().zip(&whole).map(|(got, want)| difference(got, want)).fold(0.0, f32::max)
}
