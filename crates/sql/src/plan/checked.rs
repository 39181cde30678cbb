//! The planner's rules, each wrapped in a check of whether the statement has been cancelled.
//!
//! Planning never yields, so a statement could not be cancelled without it. The optimiser calls most rules once per
//! node, so a statement ends soon after its client has left, its time is up, or its plan takes too much memory.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::OptimizerConfig;
use datafusion::optimizer::analyzer::{Analyzer, AnalyzerRule};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::{PhysicalOptimizer, PhysicalOptimizerContext};
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::{Error, budget};

use super::functions::BoundFunctions;
use super::projections::NameApart;
use super::slices::CountBySlices;
use super::type_names::TypeNames;

/// The engine's analyzer rules followed by ours: by then functions have their final types.
pub(super) fn analyzer() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let rules = Analyzer::new().rules.into_iter().map(|rule| Arc::new(Checked(rule)) as _);
    let ours = [Arc::new(NameApart) as _, Arc::new(BoundFunctions) as _, Arc::new(TypeNames) as _];
    rules.chain(ours).collect()
}

/// The engine's optimizer rules.
pub(super) fn optimizer() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    Optimizer::new().rules.into_iter().map(|rule| Arc::new(Checked(rule)) as _).collect()
}

/// The engine's rules for physical plans, followed by ours.
pub(super) fn physical() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let rules = PhysicalOptimizer::new().rules.into_iter().map(|rule| match rule.name() {
        "FilterPushdown" | "FilterPushdown(Post)" => Arc::new(UnlessAmbiguous(rule)) as _,
        _ => rule,
    });
    let ours = [Arc::new(CountBySlices) as Arc<dyn PhysicalOptimizerRule + Send + Sync>];
    rules.chain(ours).map(|rule| Arc::new(Checked(rule)) as _).collect()
}

#[derive(Debug)]
struct Checked<T>(T);

/// A rule that identifies columns by their names alone, applied only to plans in which those are unique: below a join
/// of two streams with a column `ts`, it would turn `greatest(a.ts, b.ts)` into the `ts` of one of them.
#[derive(Debug)]
struct UnlessAmbiguous(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for UnlessAmbiguous {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let is_ambiguous = plan.exists(|node| {
            let schema = node.schema();
            let mut names = HashSet::new();
            Ok(!schema.fields().iter().all(|field| names.insert(field.name())))
        })?;
        if is_ambiguous { Ok(plan) } else { self.0.optimize(plan, config) }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn check() -> Result<()> {
    budget::check(0).map_err(|stop| DataFusionError::External(Box::new(Error::from(stop))))
}

impl AnalyzerRule for Checked<Arc<dyn AnalyzerRule + Send + Sync>> {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        check()?;
        self.0.analyze(plan, config)
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}

impl OptimizerRule for Checked<Arc<dyn OptimizerRule + Send + Sync>> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        check()?;
        self.0.rewrite(plan, config)
    }
}

impl PhysicalOptimizerRule for Checked<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        check()?;
        self.0.optimize(plan, config)
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        check()?;
        self.0.optimize_with_context(plan, context)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}
