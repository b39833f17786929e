//! What a plan comes to: does it fit, what does each rank need, what have the nodes, what would fit instead.

use super::Planned;
use anyhow::{Context, Result};
use coterie_api::condition::reason;
use coterie_api::deployment::DeviceChoice;
use coterie_api::deployment::status::CapacityStatus;
use coterie_api::expert_map::ExpertMap;
use coterie_api::launch::{Device, Inspection, Quantization, Speculate};
use coterie_operator_core::model_config::SERVED_ON;
use coterie_operator_core::observed::ObservedNode;
use coterie_operator_core::plan::capacity::CapacityPlan;
use coterie_operator_core::{Action, Deployment};
use serde::Serialize;

/// For programs as JSON, for people as a table. Bytes, unless said otherwise.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether the nodes, when nothing else runs there, hold every rank of every replica.
    pub fits: bool,
    /// The same in words; if it does not fit, with what would.
    pub message: String,
    /// Whether the runtime of this version can serve it so. A plan from a config.json alone is made for any device.
    pub served: bool,
    /// The same in words; if it cannot, with what becomes of the ModelDeployment today.
    pub today: String,
    /// Whole copies of the model.
    pub replicas: usize,
    /// How the weights are held.
    pub quantization: Quantization,
    /// Longest request, tokens.
    pub context_length: u32,
    /// Slots of each layer beyond one for every expert, all ranks of a replica together.
    pub redundant: u32,
    /// Experts of one layer that one rank has room for.
    pub slots: u32,
    /// What each rank needs, as status would tell it.
    pub capacity: CapacityStatus,
    /// How many ranks all nodes hold.
    pub room: u64,
    /// What each node has.
    pub nodes: Vec<NodeReport>,
    /// What is known of the model.
    pub model: Inspection,
    /// Whether that comes from its config.json alone.
    pub estimated: bool,
    /// What to know about these figures.
    pub notes: Vec<String>,
    /// Where the experts of the first replica would be, if it has several ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expert_map: Option<ExpertMap>,
    /// Objects that would be made first.
    pub objects: Vec<String>,
}

/// What a node has.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Memory for pods.
    pub memory: u64,
    /// GPUs.
    pub gpus: u64,
    /// Memory of each GPU; 0 where no label tells it.
    pub gpu_memory: u64,
    /// How many ranks it holds, when nothing else runs there.
    pub ranks: u64,
    /// Why it does not count, if it does not: no pod is placed on it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

impl Planned {
    /// What the plan comes to.
    pub fn report(&self) -> Result<Report> {
        let plan = self.plan.capacity.as_ref().context("the plan has no capacity")?;
        let weights = self.observed.status.weights.as_ref().context("the plan has no model")?;
        let mut model = weights.inspection.clone();
        if self.estimate.is_some() {
            model.devices = SERVED_ON.to_vec();
        }
        let (fits, message) = verdict(plan, self.deployment.replicas);
        Ok(Report {
            fits,
            message,
            served: model.devices.contains(&plan.device),
            today: self.today(&model, plan.device),
            replicas: self.deployment.replicas,
            quantization: plan.quantization,
            context_length: plan.context_length,
            redundant: plan.redundant,
            slots: plan.slots,
            // Nothing runs on the nodes, so what is free says as much as what is there.
            capacity: plan.status(true),
            room: plan.room,
            nodes: self.nodes(plan),
            model,
            estimated: self.estimate.is_some(),
            notes: self.notes(plan),
            expert_map: self.observed.experts.first().and_then(|there| there.map.clone()),
            objects: self.plan.actions.iter().map(Action::object).collect(),
        })
    }

    fn nodes(&self, plan: &CapacityPlan) -> Vec<NodeReport> {
        let report = |node: &ObservedNode, left_out: Option<&String>| NodeReport {
            name: node.name.clone(),
            memory: node.allocatable.memory,
            gpus: node.allocatable.gpus,
            gpu_memory: node.gpu_memory,
            ranks: if left_out.is_some() { 0 } else { plan.ranks_on(&self.deployment, node) },
            left_out: left_out.cloned(),
        };
        let counted = self.observed.nodes.iter().map(|node| report(node, None));
        counted.chain(self.left_out.iter().map(|(node, why)| report(node, Some(why)))).collect()
    }

    fn notes(&self, plan: &CapacityPlan) -> Vec<String> {
        let mut notes =
            vec!["the nodes are taken to be empty: nothing here tells what runs on them".to_owned()];
        let left_out = self.left_out.iter();
        notes.extend(left_out.map(|(node, why)| format!("node {} does not count: it is {why}", node.name)));
        let Some(sizes) = &self.estimate else { return notes };
        notes.push(
            "sizes are estimated from config.json; coterie inspect reads them from the weights themselves, and refuses what \
             this version cannot compute"
                .to_owned(),
        );
        notes.push(match plan.device {
            Device::Cpu => "the KV cache is f32, as the runtime holds it on CPUs".to_owned(),
            Device::Gpu => {
                "the runtime has not run on a GPU yet, and uses one a rank; it is assumed that several hold \
                            weights, KV cache (bf16) and states between them in equal parts"
                    .to_owned()
            }
        });
        notes.extend(sizes.checkpoint_quantization.as_deref().map(|method| match method {
            "mxfp4" => "the checkpoint's experts are in mxfp4: None holds them as they are".to_owned(),
            _ => format!("the checkpoint is quantized ({method}), which is read and not held: None is bf16"),
        }));
        if sizes.draft_parameters > 0 {
            let what = match self.deployment.speculate {
                Some(Speculate::Mtp) => "are counted",
                _ => "are left out: the runtime loads them where model.speculate is Mtp",
            };
            notes.push(format!(
                "{} that only guess ahead (multi-token prediction) {what}",
                billions(sizes.draft_parameters)
            ));
        }
        notes
    }

    /// What the runtime serves the model on, and if that is not what was planned for, what the operator would do with
    /// the ModelDeployment.
    fn today(&self, model: &Inspection, device: Device) -> String {
        let flags: Vec<&str> = model.devices.iter().map(|device| device.flag()).collect();
        let served = format!("the runtime of this version serves this family on: {}", flags.join(", "));
        let (Some(sizes), false) = (&self.estimate, model.devices.contains(&device)) else { return served };
        let away =
            |what: &str| format!("today the operator turns {what} away ({})", reason::DEVICE_UNSUPPORTED);
        let asked = match (self.deployment.device, self.deployment.quantization) {
            (_, Some(asked)) if !asked.runs_on(Device::Cpu) => {
                format!("{}; without it, on the CPU", away(&format!("model.quantization: {asked}")))
            }
            (DeviceChoice::Auto, _) => "today the operator takes the CPU, where".to_owned(),
            _ => format!("{}; on the CPU", away("accelerator.device: Gpu")),
        };
        let deployment = Deployment {
            device: DeviceChoice::Cpu,
            gpus_per_rank: None,
            quantization: self.deployment.quantization.filter(|asked| asked.runs_on(Device::Cpu)),
            ..self.deployment.clone()
        };
        let would = Planned::of(deployment, self.observed.clone(), sizes.inspection(Device::Cpu), None);
        match &would.plan.capacity {
            None => served,
            Some(plan) => format!("{served}; {asked} {}", verdict(plan, self.deployment.replicas).1),
        }
    }
}

fn verdict(plan: &CapacityPlan, replicas: usize) -> (bool, String) {
    if let Some(obstacle) = plan.invalid.as_ref().or(plan.unplaceable.as_ref()) {
        return (false, format!("it does not fit: {}", obstacle.message));
    }
    let wanted = u64::from(plan.ranks).saturating_mul(replicas as u64);
    if plan.room < wanted {
        let message = format!(
            "it does not fit: {replicas} replicas are {}, and the nodes hold {} when empty; lower replicas, or add \
             nodes",
            ranks(wanted),
            plan.room
        );
        return (false, message);
    }
    let message = format!(
        "it fits: {} with a context of {} tokens, in {} {}",
        plan.quantization,
        plan.context_length,
        ranks(plan.ranks.into()),
        on(plan.gpus)
    );
    (true, message)
}

/// `1 rank`, `2 ranks`.
pub(super) fn ranks(count: u64) -> String {
    if count == 1 { "1 rank".to_owned() } else { format!("{count} ranks") }
}

/// `on the CPU`, `of 8 GPUs`.
pub(super) fn on(gpus: u32) -> String {
    match gpus {
        0 => "on the CPU".to_owned(),
        1 => "of 1 GPU".to_owned(),
        gpus => format!("of {gpus} GPUs"),
    }
}

/// `46.70 B parameters`.
pub(super) fn billions(parameters: u64) -> String {
    format!("{:.2} B parameters", parameters as f64 / 1e9)
}
