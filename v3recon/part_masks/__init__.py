"""Part masks of face models: show, transfer between topologies, label by vote."""
