// libtorch's thread setting belongs to the process, and two cores are soon full.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
