"""What training changes and a checkpoint contains: state, optimisers, averaged weights, loading."""
