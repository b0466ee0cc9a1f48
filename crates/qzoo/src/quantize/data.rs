use super::activations::{Activations, Network};
use super::layers::Group;
use super::method::Method;
use super::packed::PackedInput;
use super::range;
use crate::Result;
use crate::experiment::Quantize;
use crate::nn::Sees;
use crate::train::CalibrationImages;
use qgraph::Error;
use qkernels::gram::{Gram, GramMatrices, Inputs, Sources, Window};
use qkernels::{BinaryOp, binary};
use qtensor::Tensor;

/// Images whose inputs are kept to measure the error of a layer by.
const SAMPLE: usize = 256;

/// What the projections of a group are given, in the quantized and in the original network.
pub(super) struct Seen {
    pub(super) data: Data,
    /// Some mini-batches' worth: quantized and original.
    pub(super) sample: Vec<[Tensor; 2]>,
    /// How the quantized network rounds it.
    pub(super) input: Option<PackedInput>,
}

impl Seen {
    /// The sample as if nothing before these projections were quantized.
    pub(super) fn originals(&self) -> Vec<[Tensor; 2]> {
        self.sample.iter().map(|[_, analog]| [analog.clone(), analog.clone()]).collect()
    }
}

/// What a method works on.
pub(super) enum Data {
    /// Nothing.
    None,
    /// `H` and `C`.
    Gram(GramMatrices),
    /// The rows: quantized and original.
    Rows([Tensor; 2]),
}

/// The two networks at a stage.
pub(super) struct Pair<'a> {
    pub(super) analog: (&'a Network<'a>, &'a Activations),
    pub(super) quantized: (&'a Network<'a>, &'a Activations),
    /// Whether no layer before this one was changed.
    pub(super) are_same: bool,
}

/// How a group's data are collected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Collection<'a> {
    pub(super) settings: &'a Quantize,
    pub(super) inputs: Inputs,
    /// Most bytes of matrices or of rows.
    pub(super) memory: u64,
    /// Weights of all neurons.
    pub(super) neurons: usize,
}

/// Which form costs less, by the number of operations, among those that fit the memory.
pub(super) fn walks(method: &Method, collection: &Collection<'_>, images: usize, are_same: bool) -> Result<bool> {
    let Collection { inputs, memory, neurons, .. } = *collection;
    let sources = if are_same { 1 } else { 2 };
    let size = inputs.size() as f64;
    let gram_bytes = Gram::bytes(&inputs, if are_same { Sources::One } else { Sources::Two })? as f64;
    // The recursion needs a copy, and a factor of the matrix.
    let gram_bytes = gram_bytes + 16.0 * size * size;
    let can_walk = method.can_walk() && inputs.window == Window::Dense;
    let rows_bytes = 4.0 * images as f64 * size * f64::from(sources);
    let fits = |bytes: f64| bytes <= memory as f64;
    let fits_at_all = fits(gram_bytes) || can_walk && fits(rows_bytes);
    if !fits_at_all {
        let mebibytes = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
        let or_data = if can_walk { format!(", or {} for its data", mebibytes(rows_bytes)) } else { String::new() };
        let message = format!(
            "a layer of {} inputs needs {} for its Gram matrices{or_data}; raise quantize.memory, take fewer samples with method \"gpfq\", or skip the layer",
            inputs.size(),
            mebibytes(gram_bytes),
        );
        return Err(Error::argument("quantize", message).into());
    }
    let (samples, neurons) = (images as f64, neurons as f64);
    let by_gram = samples * size * size * f64::from(sources) + 2.0 * size * size * neurons;
    let by_walk = 6.0 * samples * size * neurons;
    Ok(can_walk && fits(rows_bytes) && (by_walk < by_gram || !fits(gram_bytes)))
}

impl Pair<'_> {
    /// What the group is given for each mini-batch.
    fn inputs(
        &self,
        stage: usize,
        group: &Group,
        number: usize,
        images: &mut CalibrationImages,
    ) -> Result<[Tensor; 2]> {
        let mut one = |(network, activations): (&Network<'_>, &Activations)| -> Result<Tensor> {
            let x = activations.input(number, network, images)?;
            if group.is_first { Ok(x) } else { network.input_of(&group.sites[0].name, stage, &x) }
        };
        let analog = one(self.analog)?;
        let quantized = if self.are_same { analog.clone() } else { one(self.quantized)? };
        Ok([quantized, analog])
    }

    /// The grid of the inputs, by some of them.
    fn grid(
        &self,
        place: (usize, &Group),
        collection: &Collection<'_>,
        images: &mut CalibrationImages,
    ) -> Result<Option<PackedInput>> {
        let Some(bits) = collection.settings.activation_bits else { return Ok(None) };
        let (mut some, mut count) = (Vec::new(), 0);
        for number in 0..self.analog.1.batches() {
            let [x, _] = self.inputs(place.0, place.1, number, images)?;
            count += x.shape()[0];
            some.push(x);
            if count >= SAMPLE {
                break;
            }
        }
        Ok(Some(range::grid(&some, collection.settings, bits)?))
    }

    /// Streams the calibration images and collects what the method needs, where it is not known already.
    pub(super) fn collect(
        &self,
        (stage, group): (usize, &Group),
        method: &Method,
        collection: &Collection<'_>,
        images: &mut CalibrationImages,
        known: Option<GramMatrices>,
    ) -> Result<Seen> {
        let input = self.grid((stage, group), collection, images)?;
        let mut pair = |number: usize| -> Result<[Tensor; 2]> {
            let [mut quantized, mut analog] = self.inputs(stage, group, number, images)?;
            if let Some(input) = &input {
                quantized = input.grid().round(&quantized)?;
            }
            if group.sees == Sees::Square {
                let square = |x: &Tensor| binary(BinaryOp::Mul, x, x);
                (quantized, analog) = (square(&quantized)?, square(&analog)?);
            }
            Ok([quantized, analog])
        };
        let batches = self.analog.1.batches();
        let mut sample = Sample::default();
        if !method.needs_data() || known.is_some() {
            for number in 0..batches {
                if sample.keep(&pair(number)?)? {
                    break;
                }
            }
            return Ok(Seen { data: known.map_or(Data::None, Data::Gram), sample: sample.pairs, input });
        }
        let count = self.analog.1.images();
        if walks(method, collection, count, self.are_same)? {
            let (mut quantized, mut analog) = (Vec::new(), Vec::new());
            for number in 0..batches {
                let pair = pair(number)?;
                sample.keep(&pair)?;
                let [q, a] = pair;
                quantized.push(q);
                analog.push(a);
            }
            let rows = Tensor::concatenate(&quantized, 0)?;
            drop(quantized);
            let analog = if self.are_same { rows.clone() } else { Tensor::concatenate(&analog, 0)? };
            return Ok(Seen { data: Data::Rows([rows, analog]), sample: sample.pairs, input });
        }
        let sources = if self.are_same { Sources::One } else { Sources::Two };
        let mut gram = Gram::new(collection.inputs, sources)?;
        for number in 0..batches {
            let pair = pair(number)?;
            sample.keep(&pair)?;
            gram.add(&pair[0], (!self.are_same).then_some(&pair[1]))?;
        }
        Ok(Seen { data: Data::Gram(gram.finish()?), sample: sample.pairs, input })
    }
}

/// The first images' worth of what a layer is given.
#[derive(Default)]
struct Sample {
    pairs: Vec<[Tensor; 2]>,
    images: usize,
}

impl Sample {
    /// Keeps as many as are missing; true where it has enough.
    fn keep(&mut self, [quantized, analog]: &[Tensor; 2]) -> Result<bool> {
        let count = quantized.shape()[0].min(SAMPLE - self.images);
        if count > 0 {
            let part = |x: &Tensor| x.slice(0, 0..count).map(|x| x.copy());
            self.pairs.push([part(quantized)?, part(analog)?]);
            self.images += count;
        }
        Ok(self.images >= SAMPLE)
    }
}
