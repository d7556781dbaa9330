import CoreMetrics
import NIOCore
import Upstream

/// Measures once a second how much later than due the worker's two loops come to their work.
struct LoopWatch: Sendable {
    private static let period = TimeAmount.seconds(1)

    let eventLoop: any EventLoop
    let loop: EpollLoop
    let metrics: WorkerMetrics

    /// To be cancelled.
    func start() -> RepeatedTask {
        let due = NIOLoopBoundBox.makeBoxSendingValue(NIODeadline.now() + Self.period, eventLoop: eventLoop)
        return eventLoop.scheduleRepeatedTask(initialDelay: Self.period, delay: Self.period) { [loop, metrics] _ in
            let now = NIODeadline.now()
            metrics.redisLoopDelay.recordNanoseconds(max(0, (now - due.value).nanoseconds))
            due.value = now + Self.period
            let handedOver = loop.now
            loop.execute { metrics.upstreamLoopDelay.recordNanoseconds(Int64(loop.now &- handedOver)) }
        }
    }
}
