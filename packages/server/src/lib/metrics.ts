/** Numbers that are shown to a monitoring system. Adding to them is cheap; making families of them is for scrapes. */

export interface Sample {
  /** Put behind the family's name: `_bucket`, `_sum`, `_count`. */
  readonly suffix?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly samples: readonly Sample[];
}

export function counter(name: string, help: string, value: number): Family {
  return { name, help, type: "counter", samples: [{ value }] };
}

export function gauge(name: string, help: string, value: number): Family {
  return { name, help, type: "gauge", samples: [{ value: Number.isFinite(value) ? value : 0 }] };
}

/** Upper bounds of buckets: `count` of them, each `factor` times the one before. */
export function exponentialBounds(start: number, factor: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => start * factor ** i);
}

export class Histogram {
  readonly #bounds: readonly number[];
  readonly #buckets: Float64Array;
  #sum = 0;
  #count = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#buckets = new Float64Array(bounds.length);
  }

  observe(value: number): void {
    this.#sum += value;
    this.#count++;
    // Bounds double: small values, which are the usual ones, are found first.
    const bounds = this.#bounds;
    for (let i = 0; i < bounds.length; i++) {
      if (value <= (bounds[i] as number)) {
        this.#buckets[i] = (this.#buckets[i] as number) + 1;
        return;
      }
    }
  }

  samples(labels: Readonly<Record<string, string>> = {}): Sample[] {
    const samples: Sample[] = [];
    let below = 0;
    this.#bounds.forEach((bound, i) => {
      below += this.#buckets[i] as number;
      samples.push({ suffix: "_bucket", labels: { ...labels, le: String(bound) }, value: below });
    });
    samples.push({ suffix: "_bucket", labels: { ...labels, le: "+Inf" }, value: this.#count });
    samples.push({ suffix: "_sum", labels, value: this.#sum }, { suffix: "_count", labels, value: this.#count });
    return samples;
  }

  family(name: string, help: string): Family {
    return { name, help, type: "histogram", samples: this.samples() };
  }
}

/** Values by label set. */
export class LabelledValues {
  readonly #values = new Map<string, { readonly labels: Readonly<Record<string, string>>; value: number }>();

  add(labels: Readonly<Record<string, string>>, amount = 1): void {
    this.#at(labels).value += amount;
  }

  set(labels: Readonly<Record<string, string>>, value: number): void {
    this.#at(labels).value = value;
  }

  #at(labels: Readonly<Record<string, string>>) {
    const key = Object.values(labels).join("\0");
    let entry = this.#values.get(key);
    if (!entry) {
      entry = { labels, value: 0 };
      this.#values.set(key, entry);
    }
    return entry;
  }

  family(type: "counter" | "gauge", name: string, help: string): Family {
    return { name, help, type, samples: [...this.#values.values()] };
  }
}

/** Histograms by label set. */
export class LabelledHistograms {
  readonly #bounds: readonly number[];
  readonly #histograms = new Map<string, { readonly labels: Readonly<Record<string, string>>; histogram: Histogram }>();

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
  }

  observe(labels: Readonly<Record<string, string>>, value: number): void {
    this.at(labels).observe(value);
  }

  /** The histogram of a label set; for those who observe too often to look it up each time. */
  at(labels: Readonly<Record<string, string>>): Histogram {
    const key = Object.values(labels).join("\0");
    let entry = this.#histograms.get(key);
    if (!entry) {
      entry = { labels, histogram: new Histogram(this.#bounds) };
      this.#histograms.set(key, entry);
    }
    return entry.histogram;
  }

  family(name: string, help: string): Family {
    const samples = [...this.#histograms.values()].flatMap(({ labels, histogram }) => histogram.samples(labels));
    return { name, help, type: "histogram", samples };
  }
}
