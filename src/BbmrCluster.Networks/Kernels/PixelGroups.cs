namespace BbmrCluster.Networks.Kernels;

/// <summary>How attention groups the pixels of a map whose sides are multiples of 8.</summary>
internal enum PixelGroup
{
    /// <summary>8x8 neighbours; 64 pixels in a group.</summary>
    Window,

    /// <summary>8x8 pixels strided over the whole map; 64 pixels in a group.</summary>
    Grid,

    /// <summary>All pixels at the same place of their window; 64 groups.</summary>
    Phase,
}

/// <summary>Pixel numbers of groups.</summary>
internal static unsafe class PixelGroups
{
    private const int Window = 8;

    /// <summary>Groups of a map.</summary>
    public static int Count(PixelGroup kind, int height, int width) => kind == PixelGroup.Phase ? Window * Window : height / Window * (width / Window);

    /// <summary>Pixels of a group.</summary>
    public static int Size(PixelGroup kind, int height, int width) => height * width / Count(kind, height, width);

    /// <summary>The pixels of all groups, one after the other.</summary>
    public static int[] All(PixelGroup kind, int height, int width)
    {
        var pixels = new int[height * width];
        int size = Size(kind, height, width);
        fixed (int* first = pixels)
        {
            for (int group = 0; group < Count(kind, height, width); group++)
                List(kind, height, width, group, first + (group * size));
        }
        return pixels;
    }

    /// <summary>The pixels of a group, in the order of the tokens: row by row.</summary>
    /// <param name="kind">The grouping.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="group">Number of the group.</param>
    /// <param name="pixels">Gets row times width plus column.</param>
    public static void List(PixelGroup kind, int height, int width, int group, int* pixels)
    {
        int rows = height / Window, columns = width / Window;
        (int across, int down, int step, int lines, int each) = kind switch
        {
            PixelGroup.Window => (group % columns * Window, group / columns * Window, 1, Window, Window),
            PixelGroup.Grid => (group % columns, group / columns, columns, Window, Window),
            _ => (group % Window, group / Window, Window, rows, columns),
        };
        int rowStep = kind == PixelGroup.Grid ? rows : step;
        for (int i = 0; i < lines; i++)
        {
            for (int j = 0; j < each; j++)
                *pixels++ = ((down + (i * rowStep)) * width) + across + (j * step);
        }
    }
}
