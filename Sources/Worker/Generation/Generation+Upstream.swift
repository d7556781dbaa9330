import Contract
import CoreMetrics
import CurlTransport
import JobQueue
import Logging
import Upstream

/// What the upstream delivers: output, its end, and the back pressure on it.
extension Generation: UpstreamReceiver {
    func upstreamConnected() { machine.connected() }

    func upstreamProduced(_ outputs: [UpstreamOutput], chunks: Int) {
        guard isLive else {
            // A closed call delivers nothing, so this counter stays at 0. It is counted to make that observable.
            if case .interrupted = ending { context.metrics.tokensAfterInterrupt.increment(by: chunks) }
            return
        }
        // Token counts alone are not output: a provider may report the prompt's tokens before it generates or fails.
        let begins = chunks > 0 && machine.produced(chunks: chunks)
        if begins {
            let candidate = candidates[machine.upstream]
            output.append(.upstream(name: candidate.upstream.name, model: candidate.model))
            if let pass { context.gate.succeeded(pass) }
        }
        if chunks > 0 {
            let isFirst = !times.hasFirstToken
            times.produced(at: context.loop.now)
            // The timer is set to the first-token timeout; the idle timeout may expire earlier.
            if begins { startTimer() }
            if isFirst, let at = times.firstTokenMilliseconds { context.metrics.firstToken(of: claim, at: at) }
        }
        context.metrics.tokens.increment(by: chunks)
        for piece in outputs {
            switch piece {
            case .text(let piece):
                let text = continuation?.withoutRepeatedSpace(piece) ?? piece
                guard !text.isEmpty else { continue }
                machine.produced(text: text)
                output.append(.text(text))
                speech?.append(text)
            case .reasoning(let text):
                machine.produced(text: text)
                output.append(.reasoning(text))
            case .reasoningMark(let mark): output.append(.reasoningMark(mark))
            case .toolCall(let toolCall):
                machine.produced(call: toolCall.name, arguments: toolCall.arguments)
                output.append(.toolCall(toolCall))
            case .usage(let prompt, let completion, let details):
                machine.reported(promptTokens: prompt, completionTokens: completion, details: details)
            case .finished(let reason, let stopSequence): machine.finished(reason, stopSequence: stopSequence)
            }
        }
        request(.write(tokens: chunks))
        if output.bytes > context.queueSettings.logMaximum {
            closeCall()
            let limit = context.queueSettings.logMaximum
            perform(machine.fail(Failure(.outputTooLarge, "the answer's events exceed \(limit) bytes (SLUICE_LOG_MAX)")))
        } else {
            applyBackPressure()
        }
    }

    /// Pauses reading from the upstream while too much output is unwritten.
    func applyBackPressure() {
        guard output.unwrittenBytes > OutputLog.highWater else { return }
        speech?.pause()
        guard isReading else { return }
        isReading = false
        call?.pauseReading()
    }

    func upstreamEnded(_ result: UpstreamResult) {
        call = nil
        isReading = true
        if let pass {
            if case .failed(let failure) = result {
                context.gate.failed(pass, failure.failure.code, at: context.loop.now)
            } else {
                context.gate.succeeded(pass)
            }
        }
        releasePass()
        guard isLive else { return }
        if case .complete = result, machine.produced(chunks: 0) {
            // An empty answer counts as an answer.
            let candidate = candidates[machine.upstream]
            output.append(.upstream(name: candidate.upstream.name, model: candidate.model))
        }
        if case .failed(let failure) = result {
            context.logger.info(
                "upstream failed",
                metadata: claim.job.logMetadata([
                    "code": "\(failure.failure.code.rawValue)", "status": "\(failure.failure.upstreamStatus ?? 0)",
                    "upstream": "\(candidates[machine.upstream].upstream.name)", "upstream_request": "\(failure.requestID ?? "")",
                ]))
        }
        if case .complete = result { speech?.textEnded(machine.finishReason) }
        perform(
            machine.upstreamEnded(
                result, remaining: times.remaining(at: context.loop.now), jitter: .random(in: 0...1), isSpeaking: isSpeaking))
    }

    /// Resumes reading from the upstream after back pressure.
    func resumeReading() {
        speech?.resume()
        guard !isReading else { return }
        isReading = true
        // The idle time while reading was paused does not count.
        times.resumed(at: context.loop.now)
        startTimer()
        call?.resumeReading()
    }
}
