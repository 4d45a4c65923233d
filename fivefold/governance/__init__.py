"""MAY it be done? Approvals, policy and people."""
