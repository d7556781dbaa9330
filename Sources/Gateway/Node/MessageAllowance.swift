/// Messages a second that one socket may send: what it does not use it may save up, one second's worth.
struct MessageAllowance {
    private let perSecond: Int
    private var thousandths: Int
    private var last: Int

    /// - Parameter perSecond: 0: no limit.
    init(perSecond: Int, milliseconds: Int) {
        self.perSecond = perSecond
        thousandths = perSecond * 1000
        last = milliseconds
    }

    /// - Returns: false when the allowance is used up.
    mutating func take(milliseconds: Int) -> Bool {
        guard perSecond > 0 else { return true }
        // The wall clock may step back; then nothing is gained.
        let passed = min(max(0, milliseconds - last), 1000)
        last = milliseconds
        thousandths = min(perSecond * 1000, thousandths + passed * perSecond)
        guard thousandths >= 1000 else { return false }
        thousandths -= 1000
        return true
    }
}
