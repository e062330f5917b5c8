"""What a training run changes and a checkpoint holds: state, optimisers, averaged weights, loading."""
