import Contract
import CoreMetrics
import JobQueue
import Logging
import Upstream

/// Speech: the text is synthesized while it is generated.
extension Generation {
    /// Whether speech is in progress.
    var isSpeaking: Bool { speech.map { !$0.isOver } ?? false }

    /// Starts the speech if the job requests it and the worker has a speech upstream. An unsupported format fails the speech, not the
    /// job.
    func beginSpeech() {
        guard let request = claim.job.speech, let configuration = context.settings.speech, continuation?.isVoiceClosed != true else {
            return
        }
        // The generation owns the run, and nothing else keeps it.
        let speech = SpeechRun(
            configuration, job: claim.job, client: context.upstream, gate: context.speechGate, loop: context.loop,
            continuing: continuation, idle: context.settings.idleTimeout, emit: { [unowned self] in speechProduced($0) },
            ended: { [unowned self] in speechEnded($0) })
        self.speech = speech
        if let format = request.format, format != "pcm" {
            speech.fail(Failure(.unsupportedParameter, "the only speech format is pcm, not \(format.prefix(40))"))
        } else if continuation != nil {
            speech.speakPending()
        }
    }

    /// Collects an audio event; fails the speech when the log is nearly full.
    private func speechProduced(_ audio: Audio) {
        output.append(.audio(audio))
        request(.write(tokens: 0))
        // The last eighth of the log limit is reserved for the text.
        if !audio.last, output.bytes > context.queueSettings.logMaximum / 8 * 7 {
            speech?.fail(Failure(.outputTooLarge, "the audio exceeds the job's log limit (SLUICE_LOG_MAX)"))
        } else {
            applyBackPressure()
        }
    }

    /// Logs a failure and, when the text is complete, ends the job.
    private func speechEnded(_ failure: Failure?) {
        if let failure {
            context.metrics.speechFailed.increment()
            context.logger.warning(
                "speech failed; the text goes on",
                metadata: claim.job.logMetadata(["code": "\(failure.code.rawValue)", "reason": "\(failure.message)"]))
        }
        if let action = machine.speechEnded() { perform(action) }
    }
}
