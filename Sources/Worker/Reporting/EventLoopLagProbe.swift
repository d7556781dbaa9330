import CoreMetrics
import CurlTransport
import NIOCore
import Upstream

/// Measures the scheduling delay of the two event loops of a worker, once per second.
struct EventLoopLagProbe: Sendable {
    private static let period = TimeAmount.seconds(1)

    let eventLoop: any EventLoop
    let loop: EpollLoop
    let metrics: WorkerMetrics

    /// Starts measuring; cancel the returned task to stop.
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
