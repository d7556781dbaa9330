import NIOCore

/// One timer for many deadlines. It may ring early (for a deadline that was met long ago), never late; who is rung looks, and sets it
/// again.
final class Alarm {
    private let eventLoop: any EventLoop
    private var time: NIODeadline?
    private var timer: Scheduled<Void>?
    var ring: (NIODeadline) -> Void = { _ in }

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

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
