//! Where rows enter a plan.
