use super::importance::resolution;
use super::search::Search;
use super::{Importance, Mask, Part, SearchEvent, Watch, importance, shares};
use crate::Result;
use crate::train::{Evaluator, Probe, ProbeOptions, Score};
use serde::{Deserialize, Serialize};

/// The accuracies measured so far: `measurements.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Measurements {
    /// SHA-256 of the weights that they are of.
    weights_sha256: String,
    scores: Vec<Measured>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Measured {
    /// The masked layer; none for the whole network.
    layer: Option<String>,
    draw: usize,
    #[serde(flatten)]
    score: Score,
}

impl Measurements {
    fn find(&self, layer: Option<&str>, draw: usize) -> Option<Score> {
        let mut scores = self.scores.iter();
        scores.find(|s| s.layer.as_deref() == layer && s.draw == draw).map(|s| s.score)
    }
}

/// The table of a round, with what it is of.
#[derive(Debug, Serialize, Deserialize)]
struct Table {
    weights_sha256: String,
    importance: Importance,
}

impl Search {
    /// Measures the layers of a round's network, as far as that was not done before. `None` where it was stopped.
    pub(super) fn measure(
        &self,
        number: usize,
        evaluator: Evaluator,
        parts: &[Part],
        watch: &mut dyn Watch,
    ) -> Result<Option<Importance>> {
        let weights_sha256 = evaluator.digest()?;
        let file = format!("round-{number}/importance.json");
        if let Some(table) = self.read::<Table>(&file)?.filter(|table| table.weights_sha256 == weights_sha256) {
            return Ok(Some(table.importance));
        }
        let settings = &self.plan.settings;
        let options = ProbeOptions {
            data_root: self.options.data_root.clone(),
            images: settings.images,
            calibration_images: if settings.recalibrate { settings.calibration_images } else { 0 },
            stop: self.options.stop.clone(),
        };
        let seed = self.plan.experiment.seed;
        let probe = Probe::new(evaluator, &options)?;
        let masks = parts.iter().flat_map(|part| (0..settings.seeds).map(move |draw| (Some(part), draw)));
        let tasks: Vec<(Option<&Part>, usize)> = std::iter::once((None, 0)).chain(masks).collect();
        let books = format!("round-{number}/measurements.json");
        let mut done = self.read::<Measurements>(&books)?.filter(|m| m.weights_sha256 == weights_sha256);
        let done = done.get_or_insert_with(|| Measurements { weights_sha256: weights_sha256.clone(), scores: vec![] });
        for (count, (part, draw)) in tasks.iter().enumerate() {
            let layer = part.map(|part| part.name.as_str());
            if done.find(layer, *draw).is_some() {
                continue;
            }
            if self.options.stop.is_set() {
                return Ok(None);
            }
            let whole = probe.model().parameters();
            let mask = Mask { masking: settings.masking, ratio: settings.ratio, seed, draw: *draw as u32 };
            let parameters = match part {
                Some(part) => mask.apply(whole, part)?,
                None => whole.clone(),
            };
            let Some(score) = probe.score(parameters, watch)? else { return Ok(None) };
            done.scores.push(Measured { layer: layer.map(str::to_string), draw: *draw, score });
            self.folder.write_json(&books, done)?;
            let (done, total) = (count + 1, tasks.len());
            watch.search(&SearchEvent::Measured { layer, draw: *draw, score, done, total });
        }
        let whole = done.find(None, 0).unwrap_or(Score { correct: 0, images: 0 });
        let scores_of = |part: &Part| -> Vec<Score> {
            (0..settings.seeds).filter_map(|draw| done.find(Some(&part.name), draw)).collect()
        };
        let layers = shares(probe.model(), parts)?.into_iter().zip(parts);
        let importance = Importance {
            masking: settings.masking,
            ratio: settings.ratio,
            recalibrated: settings.recalibrate,
            split: probe.split().to_string(),
            images: whole.images,
            accuracy: whole.correct as f64 / whole.images.max(1) as f64,
            resolution: resolution(whole),
            layers: layers.map(|(share, part)| importance(share, whole, &scores_of(part))).collect(),
        };
        let table = Table { weights_sha256, importance };
        self.folder.write_json(&file, &table)?;
        Ok(Some(table.importance))
    }
}
