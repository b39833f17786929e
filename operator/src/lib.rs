//! The operator's IO shell: watches, applies, reports.
