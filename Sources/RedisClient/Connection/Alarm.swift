import NIOCore

/// A single timer for many deadlines, on an event loop.
///
/// It may fire early, for a deadline that no longer matters, but never late. The callback checks all deadlines and sets the alarm again.
final class Alarm {
    let eventLoop: any EventLoop
    private var time: NIODeadline?
    private var timer: Scheduled<Void>?
    var ring: (NIODeadline) -> Void = { _ in }

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

    /// Schedules the alarm at a deadline, unless it is already set to an earlier one.
    func set(_ deadline: NIODeadline) {
        if let time, time <= deadline { return }
        timer?.cancel()
        time = deadline
        timer = eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { [weak self] in
            guard let self else { return }
            time = nil
            timer = nil
            ring(.now())
        }
    }

    func cancel() {
        timer?.cancel()
        timer = nil
        time = nil
    }
}
