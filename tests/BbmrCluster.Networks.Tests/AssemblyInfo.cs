// Tensor counts and libtorch's thread setting belong to the process, and two cores are soon full.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
