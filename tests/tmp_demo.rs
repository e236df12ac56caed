//! tmp
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::ab_upt::*;
#[test]
fn demo() -> anyhow::Result<()> {
    let dir = std::path::Path::new("/work/shared/demo");
    let config = AbUptConfig::read(dir.join("ellipsoid.json"))?;
    let s = candle_core::safetensors::load(dir.join("sample.safetensors"), &Device::Cpu)?;
    let pos = |t: &Tensor| -> candle_core::Result<Tensor> { (t * 5.0)?.unsqueeze(0) };
    for (file, dtype) in [
        ("ellipsoid.safetensors", DType::F32),
        ("ellipsoid.f16.safetensors", DType::F16),
        ("ellipsoid.bf16.safetensors", DType::BF16),
    ] {
        let model = Checkpoint::open(dir.join(file))?.load(&config, dtype, &Device::Cpu)?;
        let sup = s["geometry.supernodes"].to_dtype(DType::U32)?.to_vec1::<u32>()?;
        let geometry = Geometry::new(&(s["geometry.pos"].clone() * 5.0)?, &sup)?;
        let c = s["condition"].flatten_all()?.to_dtype(DType::F32)?;
        let c = (c / 11.547)?;
        let input = AbUptInput::new()
            .geometry(&geometry)
            .condition("beta", &c.narrow(0, 1, 1)?)
            .condition("alpha", &c.narrow(0, 0, 1)?)
            .anchors("surface", &pos(&s["surface.anchors"])?)
            .anchors("volume", &pos(&s["volume.anchors"])?);
        let t = std::time::Instant::now();
        let out = model.forward(&input)?;
        println!("first {:?}", t.elapsed());
        let t = std::time::Instant::now();
        let q = model.forward_cached(
            [("surface", pos(&s["surface.queries"])?), ("volume", pos(&s["volume.queries"])?)],
            &out.cache,
        )?;
        println!("queries {:?} {:?}", t.elapsed(), s["volume.queries"]);
        let stats = |f: &str| -> (Vec<f32>, Vec<f32>) {
            match f {
                "surface_pressure" => (vec![-0.53], vec![0.79]),
                "volume_velocity" => (vec![0.96, 0., 0.], vec![0.21, 0.26, 0.26]),
                _ => (vec![-0.1], vec![0.39]),
            }
        };
        for (f, v) in out.fields.iter().chain(q.iter()) {
            let base = f.strip_prefix("query_").unwrap_or(f);
            let (mean, std) = stats(base);
            let y = v
                .squeeze(0)?
                .to_dtype(DType::F32)?
                .broadcast_mul(&Tensor::new(std, &Device::Cpu)?)?
                .broadcast_add(&Tensor::new(mean, &Device::Cpu)?)?;
            let part = if f.starts_with("query_") { "queries" } else { "anchors" };
            let e = &s[&format!("predicted.{part}.{base}")];
            let e = e.to_dtype(DType::F32)?.reshape(y.dims())?;
            let d = (y - e)?.abs()?.max_all()?.to_scalar::<f32>()?;
            println!("{file} {f}: {d:e}");
        }
    }
    // pooling speed
    let pts = Tensor::rand(0f32, 100., (65536, 3), &Device::Cpu)?;
    let sup: Vec<u32> = (0..16384).map(|i| i * 4).collect();
    let g = Geometry::new(&pts, &sup)?;
    let pc: PoolingConfig = serde_json::from_str(r#"{"hidden_dim": 192, "radius": 5.0, "max_degree": 32}"#)?;
    let vars = candle_nn::VarMap::new();
    let p = SupernodePooling::new(&pc, candle_nn::VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
    let t = std::time::Instant::now();
    p.forward(&g)?;
    println!("pool 65536/16384 {:?}", t.elapsed());
    Ok(())
}
