import Contract
import CoreMetrics
import JobQueue
import Logging
import NIOCore
import RedisClient

/// Subscribes to the cancel and hand-back channels of every partition. An interrupt goes to the claim in progress, or to the running job,
/// whose connection is closed at once (`GenerationRoom.interrupt`). Uses a Redis connection of its own.
struct InterruptListener: Sendable {
    let subscriber: RedisSubscriber
    let consumer: JobConsumer
    let claimer: Claimer
    let room: GenerationRoom
    let metrics: WorkerMetrics
    let logger: Logger
    let clock: @Sendable () -> UInt64
    /// Called after each subscription: messages published before it may be missed.
    let mayHaveMissed: @Sendable () -> Void
    /// Called when another worker has handed back jobs.
    let jobsReturned: @Sendable () -> Void

    /// Subscribes to all channels. Must be called on the subscriber's event loop, which is also the claimer's.
    func listen() {
        for partition in 0..<consumer.keys.partitions {
            subscriber.subscribe(consumer.keys.cancel(partition: partition)) { event in
                switch event {
                case .message(let buffer): received(buffer)
                case .subscribed: mayHaveMissed()
                case .lost: break
                }
            }
            subscriber.subscribe(consumer.keys.returned(partition: partition)) { event in
                switch event {
                // Also after a subscription: earlier hand-backs were not received.
                case .message, .subscribed: jobsReturned()
                case .lost: break
                }
            }
        }
    }

    /// Parses and passes on an interrupt. Runs on the event loop of the claimer.
    private func received(_ message: ByteBuffer) {
        let seenAt = clock()
        guard let interrupt = Interrupt(parsing: message.readableBytesView) else {
            metrics.cancelIgnored.increment()
            logger.warning(
                "ignored a message on the cancel channel that is not an interrupt", metadata: ["bytes": "\(message.readableBytes)"])
            return
        }
        if claimer.assumeIsolated({ $0.keep(interrupt) }) { return }
        room.interrupt(interrupt, seenAt: seenAt)
    }
}
