// What was measured, as a table for people, and as an SVG plot of the ratios.

export function median(values) {
  const sorted = values.filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function number(value) {
  if (value === undefined || value === null) return "-";
  if (value >= 1000) return Math.round(value).toLocaleString("en-US");
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1);
  return value.toFixed(2);
}

const megabytes = (bytes) => (bytes === undefined ? "-" : (bytes / 1e6).toFixed(0));

/** What all rounds of a row come to, for each kind of server, and the ratio of the pairs. */
export function summarize(row, runs) {
  const kinds = {};
  for (const [kind, list] of Object.entries(runs)) {
    const get = (read) => median(list.map(read));
    const perCall = (read) =>
      get((run) => (run.count > 0 && read(run) !== undefined ? (read(run) * 1000) / run.count : null));
    kinds[kind] = {
      figure: get((run) => row.figure(run)),
      p50: get((run) => run.latencyMs?.p50),
      p99: get((run) => run.latencyMs?.p99),
      max: get((run) => run.latencyMs?.max),
      anonymous: get((run) => run.memory?.anonymous),
      mapped: get((run) => run.memory?.mapped),
      serverCpuUs: perCall((run) => run.serverCpuMs),
      generatorCpuUs: perCall((run) => run.generatorCpuMs),
      generatorShare: get((run) => (run.tookMs ? run.generatorCpuMs / run.tookMs : null)),
      errors: list.reduce((sum, run) => sum + (run.errors ?? 0), 0),
    };
  }
  const { ours, peer } = runs;
  const pairs = (read) =>
    peer ? median(ours.map((run, i) => (peer[i] && read(peer[i]) ? read(run) / read(peer[i]) : null))) : undefined;
  const ratio = pairs(row.figure);
  const p99Ratio = pairs((run) => run.latencyMs?.p99);
  const cpuRatio = pairs((run) => (run.count > 0 ? run.serverCpuMs / run.count : undefined));
  const against = row.goalIs === "limit" ? kinds.ours.figure : ratio;
  let isMet;
  if (against !== undefined && row.goal !== undefined) {
    const isLess = row.goalIs === "limit" || row.better === "less";
    isMet = isLess ? against <= row.goal : against >= row.goal;
    if (row.checksP99 && p99Ratio !== undefined && p99Ratio > 1) isMet = false;
  }
  return {
    title: row.title,
    unit: row.unit,
    better: row.better,
    goal: row.goal,
    goalIs: row.goalIs ?? "ratio",
    ratio,
    p99Ratio,
    cpuRatio,
    isMet,
    ...kinds,
  };
}

const times = (ratio) => (ratio === undefined || Number.isNaN(ratio) ? "-" : `${ratio.toFixed(2)}x`);

function goalText({ goal, goalIs, better, unit }) {
  if (goal === undefined) return "";
  if (goalIs === "limit") return `< ${number(goal)}${unit}`;
  return better === "less" ? `<= ${goal}x` : `${goal}x`;
}

export function markdown(summaries, context) {
  const lines = [`${context.what}`, ""];
  lines.push(
    "| | ours | p99 ms | theirs | p99 ms | ratio | p99 ratio | goal | met | ours own / mapped MB | theirs own / mapped MB | CPU us/op ours, theirs, generator | CPU ratio |",
    "|---|--:|--:|--:|--:|--:|--:|--:|:-:|--:|--:|--:|--:|",
  );
  for (const row of Object.values(summaries)) {
    const { ours, peer } = row;
    const cell = (kind) => (kind ? `${number(kind.figure)}${row.unit}` : "-");
    const memory = (kind) => (kind ? `${megabytes(kind.anonymous)} / ${megabytes(kind.mapped)}` : "-");
    const met = row.isMet === undefined ? "" : row.isMet ? "yes" : "no";
    const errors = (ours.errors ?? 0) + (peer?.errors ?? 0);
    lines.push(
      `| ${row.title}${errors > 0 ? ` (${errors} errors)` : ""} | ${cell(ours)} | ${number(ours.p99)} | ${cell(peer)} | ${number(peer?.p99)} ` +
        `| ${times(row.ratio)} | ${times(row.p99Ratio)} ` +
        `| ${goalText(row)} | ${met} | ${memory(ours)} | ${memory(peer)} ` +
        `| ${number(ours.serverCpuUs)}, ${number(peer?.serverCpuUs)}, ${number(ours.generatorCpuUs)} | ${times(row.cpuRatio)} |`,
    );
  }
  return `${lines.join("\n")}\n`;
}

/** The same for a terminal: columns instead of bars. */
export function plain(summaries) {
  const head = [
    "",
    "ours",
    "p99",
    "theirs",
    "p99",
    "ratio",
    "goal",
    "met",
    "MB ours",
    "MB theirs",
    "us/op",
    "CPU",
    "generator",
  ];
  const table = [head];
  for (const row of Object.values(summaries)) {
    const { ours, peer } = row;
    const cell = (kind) => (kind ? `${number(kind.figure)}${row.unit}` : "-");
    const memory = (kind) => (kind ? `${megabytes(kind.anonymous)}/${megabytes(kind.mapped)}` : "-");
    table.push([
      row.title + (ours.errors + (peer?.errors ?? 0) > 0 ? ` (${ours.errors}+${peer?.errors ?? 0} errors)` : ""),
      cell(ours),
      number(ours.p99),
      cell(peer),
      number(peer?.p99),
      times(row.ratio),
      goalText(row),
      row.isMet === undefined ? "" : row.isMet ? "yes" : "no",
      memory(ours),
      memory(peer),
      `${number(ours.serverCpuUs)}/${number(peer?.serverCpuUs)}`,
      times(row.cpuRatio),
      ours.generatorCpuUs === undefined
        ? "-"
        : `${number(ours.generatorCpuUs)} us, ${(100 * ours.generatorShare).toFixed(0)}% of a core`,
    ]);
  }
  const widths = head.map((_, column) => Math.max(...table.map((line) => line[column].length)));
  return table
    .map((line) => line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join("  "))
    .join("\n");
}

const ROW_HEIGHT = 26;
const LABEL_WIDTH = 420;
const PLOT_WIDTH = 520;
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/**
 * A bar a row: how many times better than the peer, on a logarithmic axis; 1 is as good as. Goals that are ratios are
 * marked by a line across the bar.
 */
export function svg(summaries, context) {
  const rows = Object.values(summaries)
    .filter((row) => row.ratio !== undefined && Number.isFinite(row.ratio) && row.ratio > 0)
    .map((row) => {
      const turn = (ratio) => (row.better === "less" ? 1 / ratio : ratio);
      return {
        title: row.title,
        gain: turn(row.ratio),
        goal: row.goalIs === "ratio" && row.goal ? turn(row.goal) : undefined,
      };
    });
  const low = Math.min(0.5, ...rows.map((row) => row.gain));
  const high = Math.max(4, ...rows.flatMap((row) => [row.gain, row.goal ?? 1])) * 1.15;
  const x = (gain) => LABEL_WIDTH + (Math.log(gain / low) / Math.log(high / low)) * PLOT_WIDTH;
  const height = (rows.length + 2) * ROW_HEIGHT + 20;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${LABEL_WIDTH + PLOT_WIDTH + 80}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    `<text x="10" y="18" font-weight="bold">${escaped(`times as good as the peer; ${context.what}`)}</text>`,
  ];
  for (let step = 10 ** Math.floor(Math.log10(low)); step <= high; step *= 10) {
    for (const gain of [step, step * 2, step * 5]) {
      if (gain < low || gain > high) continue;
      parts.push(
        `<line x1="${x(gain)}" x2="${x(gain)}" y1="30" y2="${height - 22}" stroke="${gain === 1 ? "#000" : "#ddd"}"/>`,
        `<text x="${x(gain)}" y="${height - 8}" text-anchor="middle" fill="#555">${Number(gain.toPrecision(2))}x</text>`,
      );
    }
  }
  rows.forEach((row, index) => {
    const y = 36 + index * ROW_HEIGHT;
    const [from, to] = [x(1), x(row.gain)].sort((a, b) => a - b);
    const colour = row.goal !== undefined && row.gain < row.goal ? "#d08a2e" : row.gain < 1 ? "#b03a2e" : "#2e7d52";
    parts.push(
      `<text x="${LABEL_WIDTH - 8}" y="${y + 13}" text-anchor="end">${escaped(row.title)}</text>`,
      `<rect x="${from}" y="${y}" width="${Math.max(1, to - from)}" height="17" fill="${colour}"/>`,
      `<text x="${to + 5}" y="${y + 13}">${row.gain.toFixed(2)}x</text>`,
    );
    if (row.goal !== undefined) {
      parts.push(
        `<line x1="${x(row.goal)}" x2="${x(row.goal)}" y1="${y - 3}" y2="${y + 20}" stroke="#333" stroke-width="2"/>`,
      );
    }
  });
  parts.push("</svg>");
  return `${parts.join("\n")}\n`;
}
