/**
 * A bar on standard error for whatever takes more than a second, when that is a terminal:
 *
 *     restoring  [=========>                    ]  31%  412 MB of 1.3 GB  388 MB/s  2 s left
 */
import type { Progress } from "@etcd-ts/server/storage";
import type { Io } from "./io.ts";

const SHOW_AFTER_MS = 1_000;
const EVERY_MS = 100;
const BAR_CHARS = 30;
/** Looking at the clock for each of a million rows would cost more than it tells. */
const CALLS_PER_LOOK = 64;

export interface ProgressBar {
  readonly onProgress: ((progress: Progress) => void) | undefined;
  /** Takes the bar off the screen. */
  end(): void;
}

function bytesText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1_000 && unit < units.length - 1) {
    value /= 1_000;
    unit++;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

function timeText(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
}

/** One line of it, without the carriage return. */
export function progressLine({ what, doneBytes, totalBytes }: Progress, elapsedMs: number): string {
  const share = totalBytes > 0 ? Math.min(1, doneBytes / totalBytes) : 1;
  const filled = Math.floor(share * BAR_CHARS);
  const bar = filled === BAR_CHARS ? "=".repeat(BAR_CHARS) : `${"=".repeat(filled)}>`.padEnd(BAR_CHARS);
  const perSecond = elapsedMs > 0 ? (doneBytes * 1_000) / elapsedMs : 0;
  const left = perSecond > 0 ? `  ${timeText((totalBytes - doneBytes) / perSecond)} left` : "";
  const percent = String(Math.floor(share * 100)).padStart(3);
  return `${what}  [${bar}] ${percent}%  ${bytesText(doneBytes)} of ${bytesText(totalBytes)}  ${bytesText(perSecond)}/s${left}`;
}

export function progressBar(io: Io, nowMs: () => number = () => performance.now()): ProgressBar {
  if (!io.err.isTerminal) return { onProgress: undefined, end: () => {} };
  const started = nowMs();
  let phase = "";
  let phaseStarted = started;
  let shown = 0;
  let calls = 0;
  let isShown = false;
  return {
    onProgress(progress) {
      if (progress.what !== phase) {
        phase = progress.what;
        phaseStarted = nowMs();
        calls = 0;
      }
      if (calls++ % CALLS_PER_LOOK !== 0) return;
      const now = nowMs();
      if (now - started < SHOW_AFTER_MS || now - shown < EVERY_MS) return;
      shown = now;
      isShown = true;
      io.err.write(`\r\u001b[K${progressLine(progress, now - phaseStarted)}`);
    },
    end() {
      if (isShown) io.err.write("\r\u001b[K");
      isShown = false;
    },
  };
}
