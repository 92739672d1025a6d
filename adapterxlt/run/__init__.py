"""The moving parts: studies, the scheduler, pools and workers."""
