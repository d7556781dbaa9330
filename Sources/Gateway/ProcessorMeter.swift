import Glibc
import Support

/// CPU usage of this process, averaged over the last second or more. Not thread-safe; used on the event loop.
final class ProcessorMeter {
    private var lastWall = 0
    private var lastBusy = 0
    private var share = 0.0

    /// Per cent of one core; above 100 when several threads are busy. Updated at most once per second.
    var percent: Double {
        let wall = WallClock.milliseconds
        guard wall - lastWall >= 1000 || wall < lastWall else { return share }
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        let busy = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 + Int(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000
        if lastWall > 0, wall > lastWall { share = Double(busy - lastBusy) / Double(wall - lastWall) * 100 }
        (lastWall, lastBusy) = (wall, busy)
        return share
    }
}
