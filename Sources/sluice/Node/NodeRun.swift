import Glibc
import Logging
import Observability
import OperatorTools
import ServiceLifecycle
import UnixSignals

/// Runs services in dependency order until a signal or until one of them ends or fails.
///
/// The first SIGTERM or SIGINT shuts the services down gracefully in reverse order. The second one cancels them; half a second later the
/// process exits in any case.
struct NodeRun: Sendable {
    /// Time from the cancellation to the forced exit.
    private static let exitDelay = Duration.milliseconds(500)

    let services: [any Service]
    let logger: Logger

    /// Returns after a graceful shutdown.
    /// - Throws: `CommandFailure` when a service failed or the services were stopped by a second signal.
    func run() async throws {
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
        // The group logs its internal steps; only its errors are of interest.
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .error)
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: services.map {
                    .init(service: $0, successTerminationBehavior: .gracefullyShutdownGroup, failureTerminationBehavior: .cancelGroup)
                }, logger: quiet))
        let result = await withTaskGroup(of: Result<Void, any Error>?.self) { tasks -> Result<Void, any Error> in
            tasks.addTask {
                do { return .success(try await group.run()) } catch { return .failure(error) }
            }
            tasks.addTask {
                await listen(to: signals, group: group)
                return nil
            }
            var result: Result<Void, any Error> = .success(())
            var wasStopped = false
            for await ended in tasks {
                if let ended {
                    result = wasStopped ? .failure(CommandFailure(.failed, "")) : ended
                    tasks.cancelAll()
                } else if !Task.isCancelled {
                    // The listener ended first, so the second signal has arrived.
                    wasStopped = true
                    tasks.cancelAll()
                }
            }
            return result
        }
        do { try result.get() } catch let failure as CommandFailure {
            throw failure
        } catch {
            logger.error("node failed", metadata: ["error": "\(error)"])
            throw CommandFailure(.failed, "")
        }
        logger.info("node ended")
    }

    /// Shuts the group down at the first signal. Returns after the second signal or on cancellation.
    private func listen(to signals: UnixSignalsSequence, group: ServiceGroup) async {
        var isDraining = false
        for await signal in signals {
            guard isDraining else {
                isDraining = true
                logger.info("draining, a second signal stops at once", metadata: ["signal": "\(signal)"])
                await group.triggerGracefulShutdown()
                continue
            }
            logger.warning("stopping at once", metadata: ["signal": "\(signal)"])
            Task.detached {
                try? await Task.sleep(for: Self.exitDelay)
                Telemetry.flush()
                // Not exit(3): its handlers may free objects that other threads are using.
                _exit(ExitStatus.failed.rawValue)
            }
            return
        }
    }
}
