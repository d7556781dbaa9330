import Contract
import NIOCore
import RedisClient
import Support

/// A message that every worker receives, on the cancel and hand-back channels of every partition.
package enum WorkerSignal: Sendable {
    /// A job is to be interrupted. `receivedAt`: when the message arrived, CLOCK_MONOTONIC ns.
    case interrupt(Interrupt, receivedAt: UInt64)
    /// A message on the cancel channel that is not an interrupt.
    case invalidInterrupt(bytes: Int)
    /// The cancel channel of a partition is subscribed, for the first time or again: earlier interrupts were not received. They are in the
    /// interrupt keys, which a renewal of leases reads.
    case interruptsSubscribed
    /// A worker has returned jobs to a queue of the partition or has left waiting ones to others, or may have done so while the channel was not
    /// subscribed.
    case jobsReturned(partition: Int)
    /// An operator has paused or resumed a class, or asks a worker to drain.
    case operatorCommands
    /// A holder of this worker was admitted by a limit, or is the next one.
    case limitChanged(String)
}

extension ConsumerConnections {
    /// Subscribes to the signals of all partitions. Must be called on the event loop; `receive` runs there, synchronously with the arrival
    /// of the message.
    /// - Parameter worker: the name of this worker.
    package func subscribe(keys: Keys, worker: String, receive: @escaping @Sendable (WorkerSignal) -> Void) {
        subscriber.subscribe(keys.limitChanged(of: worker)) { event in
            // After an interruption the renewals of the limits find out.
            if case .message(let message) = event { receive(.limitChanged(String(buffer: message))) }
        }
        subscriber.subscribe(keys.control) { event in
            switch event {
            case .message, .subscribed: receive(.operatorCommands)
            case .lost: break
            }
        }
        for partition in 0..<keys.partitions {
            subscriber.subscribe(keys.cancel(partition: partition)) { event in
                switch event {
                case .message(let message): receive(Self.signal(message, receivedAt: MonotonicClock.nanoseconds))
                case .subscribed: receive(.interruptsSubscribed)
                case .lost: break
                }
            }
            subscriber.subscribe(keys.returned(partition: partition)) { event in
                switch event {
                // Also after a subscription: earlier hand-backs were not received.
                case .message, .subscribed: receive(.jobsReturned(partition: partition))
                case .lost: break
                }
            }
        }
    }

    /// Parses a message of the cancel channel.
    private static func signal(_ message: ByteBuffer, receivedAt: UInt64) -> WorkerSignal {
        Interrupt(parsing: message.readableBytesUInt8Span).map { .interrupt($0, receivedAt: receivedAt) }
            ?? .invalidInterrupt(bytes: message.readableBytes)
    }
}
