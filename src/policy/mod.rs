//! Decides what Casbin is asked. Stub replaced by the policy room.
