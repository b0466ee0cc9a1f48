//! Forward and backward passes of small models in two backward modes: `cargo bench -p quartz-benches --bench steps`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qgraph::{Tape, Tensor, Var};
use qtensor::random::{Purpose, Stream, StreamKey};
use qzoo::experiment::{self, Backward, BackwardMode, ModelName};
use qzoo::models::Model;
use qzoo::nn::{Leaves, Phase};

const BATCH: usize = 32;

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward_backward");
    group.sample_size(10).throughput(Throughput::Elements(BATCH as u64));
    let mut random = Stream::new(StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index: 0 });
    let images = random.normal_tensor([BATCH, 3, 32, 32], 0.0, 1.0).expect("a small shape").to_channels_last();
    let labels = Tensor::from_vec([BATCH], (0..BATCH as i64).map(|i| i % 10).collect()).expect("a small shape");
    for name in [ModelName::SmallCnn, ModelName::ResNet20] {
        for mode in [BackwardMode::Ad, BackwardMode::Recompute] {
            let config = experiment::Model { name, ..Default::default() };
            let mut model = Model::build(&config, [3, 32, 32], 10, 0).expect("a model of the zoo");
            model.set_backward(&Backward { mode, ..Backward::default() }).expect("no patterns");
            let step = || -> Result<f64, qgraph::Error> {
                let mut tape = Tape::new();
                let leaves = Leaves::on(&mut tape, model.parameters());
                let images = Var::constant(images.clone());
                let logits = model.forward(&mut tape, &leaves, &images, Phase::Train { seed: 0, step: 0 })?;
                let loss = tape.cross_entropy(&logits, &labels, 0.0)?;
                leaves.into_gradients(tape.backward(&loss)?);
                Ok(loss.value().item()?)
            };
            group.bench_function(BenchmarkId::new(name.name(), mode.name()), |bencher| bencher.iter(step));
        }
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
