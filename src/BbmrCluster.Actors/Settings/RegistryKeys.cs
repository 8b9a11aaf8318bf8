namespace BbmrCluster.Actors.Settings;

/// <summary>Registry key of the archive coordinators.</summary>
public sealed class ArchiveCoordinatorKey;

/// <summary>Registry key of the read model of archives.</summary>
public sealed class ArchiveIndexKey;

/// <summary>Registry key of the image coordinators.</summary>
public sealed class ImageCoordinatorKey;

/// <summary>Registry key of the work broker.</summary>
public sealed class WorkBrokerKey;

/// <summary>Registry key of the store's janitor.</summary>
public sealed class StoreJanitorKey;

/// <summary>Registry key of this process's worker manager.</summary>
public sealed class WorkerManagerKey;
