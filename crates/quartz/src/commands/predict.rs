//! `predict`: classes of image files.

use crate::args::Predict;
use crate::failure::Failure;
use crate::format::percent;
use qzoo::train::Predictor;
use serde_json::json;

/// Classifies every image and prints the most probable classes.
pub(crate) fn run(arguments: &Predict) -> Result<(), Failure> {
    if arguments.topk == 0 {
        return Err(Failure::usage("--topk is 0; at least one class has to be shown"));
    }
    let predictor = Predictor::open(&arguments.run)?;
    let mut predictions = Vec::new();
    for image in &arguments.images {
        let prediction = predictor.predict(image, arguments.topk)?;
        if !arguments.json {
            let guesses: Vec<String> =
                prediction.guesses.iter().map(|g| format!("{} {}", g.name, percent(g.probability))).collect();
            println!("{}: {}", image.display(), guesses.join(", "));
        }
        predictions.push(prediction);
    }
    if arguments.json {
        println!("{}", json!({"images": predictions}));
    }
    Ok(())
}
