//! The report for people.

use super::Report;
use super::report::{billions, on, ranks};
use crate::columns::columns;
use coterie_operator_core::observed::quantity::readable;
use std::fmt::Write;

impl Report {
    /// As text, a paragraph for each subject.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n{}\n\n", self.message, self.today);
        text += &columns(&self.subject());
        for rows in [self.rank(), self.options(), self.nodes()] {
            text.push('\n');
            text += &columns(&rows);
        }
        if let Some(map) = &self.expert_map {
            text += "\nEXPERTS OF THE FIRST REPLICA\n";
            text += &map.table();
        }
        text.push('\n');
        // Writing to a String cannot fail.
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        match self.objects.is_empty() {
            true => text += "objects: none\n",
            false => {
                let _ = writeln!(text, "objects (-o yaml prints them): {}", self.objects.join(", "));
            }
        }
        text
    }

    fn subject(&self) -> Vec<Vec<String>> {
        let (model, capacity) = (&self.model, &self.capacity);
        let model = format!(
            "{}, {}, {:.2} B of them active; {} layers, {}",
            model.architecture,
            billions(model.parameters),
            model.active_parameters as f64 / 1e9,
            model.layers,
            model.mixture()
        );
        let copies = match self.redundant {
            0 => String::new(),
            redundant => format!(", {redundant} redundant experts a layer"),
        };
        let replica = format!(
            "{} {}, {}, context {}{copies}",
            ranks(capacity.ranks.into()),
            on(capacity.gpus_per_rank.unwrap_or(0)),
            self.quantization,
            self.context_length
        );
        vec![
            row(["model", &model]),
            row(["replica", &replica]),
            row(["replicas", &self.replicas.to_string()]),
        ]
    }

    fn rank(&self) -> Vec<Vec<String>> {
        let parts = self.capacity.parts.unwrap_or_default();
        let sum = [parts.weights, parts.experts, parts.kv_cache, parts.state, parts.working];
        let sum = sum.into_iter().fold(0, u64::saturating_add);
        let experts = format!("experts, {} of {} a layer", self.slots, self.model.experts);
        let mut rows = vec![row(["ONE RANK", "MEMORY"])];
        let mut line = |name: &str, bytes: u64| rows.push(row([name, &readable(bytes)]));
        line("weights beside experts", parts.weights);
        line(&experts, parts.experts);
        line("KV cache of one longest request", parts.kv_cache);
        if parts.state > 0 {
            line("state of one request", parts.state);
        }
        line("working memory", parts.working);
        line("headroom, 5 %", self.capacity.needed.saturating_sub(sum));
        line("needed", self.capacity.needed);
        if let Some(gpus) = self.capacity.gpus_per_rank {
            line("needed on each GPU", self.capacity.needed.div_ceil(u64::from(gpus.max(1))));
        }
        if let Some(limit) = self.capacity.limit {
            line("memory limit", limit);
        }
        line("largest block on one node", self.capacity.largest_node);
        line("largest block that is free", self.capacity.free.unwrap_or_default());
        rows
    }

    fn options(&self) -> Vec<Vec<String>> {
        let mut rows = vec![row(["QUANTIZATION", "NEEDED", "FITS", "LONGEST CONTEXT THAT FITS"])];
        for option in &self.capacity.options {
            let longest = option.longest_context.map_or("none".to_owned(), |tokens| tokens.to_string());
            let fits = if option.fits { "yes" } else { "no" };
            rows.push(row([&option.quantization.to_string(), &readable(option.needed), fits, &longest]));
        }
        rows
    }

    fn nodes(&self) -> Vec<Vec<String>> {
        let mut rows = vec![row(["NODE", "MEMORY", "GPUS", "RANKS THAT FIT"])];
        for node in &self.nodes {
            let gpus = match (node.gpus, node.gpu_memory) {
                (0, _) => "none".to_owned(),
                (gpus, 0) => format!("{gpus} of unknown memory"),
                (gpus, memory) => format!("{gpus} of {}", readable(memory)),
            };
            let ranks = node.ranks.to_string()
                + &node.left_out.iter().map(|why| format!(": {why}")).collect::<String>();
            rows.push(row([&node.name, &readable(node.memory), &gpus, &ranks]));
        }
        rows.push(row(["all", "", "", &self.room.to_string()]));
        rows
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}
