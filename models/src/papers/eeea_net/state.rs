//! A search's state as JSON.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use shadegrad::io::write_atomic;
use shadegrad::rng::Philox;
use shadegrad::{Error, Result};

use super::search::{STREAM, State};
use super::{Individual, NetCfg, Search, mac_count, param_count};

/// Of the file's layout.
const VERSION: u64 = 1;

/// Writes the state beside `path` and renames it: the file is always whole.
pub(super) fn save(search: &Search, s: &State, path: &Path) -> Result<()> {
    let history: Vec<Value> = s.history.iter().map(individual).collect();
    let all = json!({
        "version": VERSION,
        "search": settings(search),
        "random_words_drawn": s.rng.position(),
        "generation": s.generation,
        "population": s.population,
        "history": history,
        "draws": s.draws,
        "rejected": s.rejected,
    });
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| Error::io(path, &e))?;
    }
    write_atomic(path, |file| writeln!(file, "{all:#}"))
}

/// Reads what [`save`] wrote for the same search.
pub(super) fn load(search: &Search, path: &Path) -> Result<State> {
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let wrong = |what: &str| Error::data(path, format!("{what}; remove the file to begin anew"));
    let all: Value = serde_json::from_str(&text).map_err(|e| wrong(&format!("is no JSON ({e})")))?;
    if all["version"] != json!(VERSION) {
        return Err(wrong(&format!("has version {}, this is {VERSION}", all["version"])));
    }
    let mine = settings(search);
    if all["search"] != mine {
        let differs: Vec<String> = mine
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, v)| all["search"][k.as_str()] != **v)
            .map(|(k, v)| format!("{k} is {} there and {v} here", all["search"][k.as_str()]))
            .collect();
        return Err(wrong(&format!("is the state of another search: {}", differs.join(", "))));
    }
    let number = |v: &Value, name: &str| {
        v[name].as_u64().ok_or_else(|| wrong(&format!("holds no number `{name}`")))
    };
    let genes = |v: &Value| -> Result<Vec<usize>> {
        let list = v.as_array().ok_or_else(|| wrong("holds no list of genes"))?;
        list.iter().map(|g| g.as_u64().map(|g| g as usize).ok_or_else(|| wrong("holds a gene that is no number"))).collect()
    };
    let list = |name: &str| all[name].as_array().ok_or_else(|| wrong(&format!("holds no list `{name}`")));
    let one = |v: &Value| -> Result<Individual> {
        let genotype = search.genotype(&genes(&v["genes"])?)?;
        let accuracy = v["accuracy"].as_str().and_then(|a| a.parse().ok());
        Ok(Individual {
            params: param_count(&genotype, &search.full)?,
            macs: mac_count(&genotype, &search.full, search.image)?,
            genotype,
            generation: number(v, "generation")? as usize,
            accuracy: accuracy.ok_or_else(|| wrong("holds a genotype without an accuracy"))?,
            trained: v["trained"].as_bool().ok_or_else(|| wrong("does not say whether a genotype was trained"))?,
            seconds: v["seconds"].as_f64().unwrap_or(0.0),
        })
    };
    let population = list("population")?.iter().map(genes).collect::<Result<Vec<_>>>()?;
    for g in &population {
        search.genotype(g)?;
    }
    if population.len() != search.population {
        return Err(wrong(&format!("holds a population of {}", population.len())));
    }
    Ok(State {
        rng: Philox::at(search.seed, STREAM, number(&all, "random_words_drawn")?),
        generation: number(&all, "generation")? as usize,
        population,
        history: list("history")?.iter().map(one).collect::<Result<_>>()?,
        draws: number(&all, "draws")? as usize,
        rejected: number(&all, "rejected")? as usize,
    })
}

fn individual(i: &Individual) -> Value {
    json!({
        "genes": i.genotype.to_chromosome(),
        "generation": i.generation,
        // As text, which is read back to the same bits; a JSON number need not be.
        "accuracy": i.accuracy.to_string(),
        "trained": i.trained,
        "seconds": i.seconds,
        "cells": i.genotype.to_string(),
    })
}

/// All that a search's course depends on.
fn settings(s: &Search) -> Value {
    let NetCfg { c0, layers, classes, aux, in_chans } = s.full;
    json!({
        "population": s.population,
        "generations": s.generations,
        "keep": s.keep,
        "p_mut": s.p_mut.to_string(),
        "p_inv": s.p_inv.to_string(),
        "beta": s.beta,
        "full": { "c0": c0, "layers": layers, "classes": classes, "aux": aux, "in_chans": in_chans },
        "image": [s.image.0, s.image.1],
        "blocks": s.blocks,
        "concat_all": s.concat_all,
        "seed": s.seed,
        "max_draws": s.max_draws,
        "compat": s.compat,
    })
}
