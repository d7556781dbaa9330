/// Receives the events of one generation call, synchronously on the event loop. It may cancel the call from inside a callback.
package protocol UpstreamReceiver: AnyObject {
    /// The connection is open and the request is about to be written; next is the wait for the first token.
    func upstreamConnected()
    /// Output has arrived.
    ///
    /// `outputs` is empty if the chunks held only fragments of tool calls: a tool call is delivered when complete, but its chunks count at
    /// once. If `chunks` is 0, `outputs` holds only usage or the finish reason. Usage may come before the first token (Anthropic sends the
    /// prompt's usage first).
    /// - Parameter chunks: Number of provider chunks with output, an estimate of the tokens generated.
    func upstreamProduced(_ outputs: [UpstreamOutput], chunks: Int)
    /// The call has ended. This is the last callback; it does not follow a `cancel()`.
    func upstreamEnded(_ result: UpstreamResult)
}
