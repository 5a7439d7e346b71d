// Details of one engine, the two pinned engines, and their paired comparison.

// The first row is A, the second B: as in their comparison if there is one, else in the order of pinning. A third
// pin replaces the second in the order of pinning.
const PINS = { rows: [], order: [], watchers: [] };
const pinIndex = (row) => PINS.rows.findIndex((pinned) => pinned.index === row.index); // rows of charts are copies

function pin(row) {
  const index = pinIndex(row);
  if (index >= 0) PINS.order = PINS.order.filter((pinned) => pinned.index !== row.index);
  else PINS.order.splice(1, 1, ROWS[row.index]);
  const [a, b] = PINS.order;
  PINS.rows = b && pairOf(a, b).a === b ? [b, a] : [...PINS.order];
  announce(index >= 0 ? `${row.name} is no longer pinned.`
    : b ? `${PINS.rows.map((pinned) => pinned.name).join(' and ')} are compared below the chart.` : `${row.name} is pinned; pin a second engine to compare.`);
  for (const watcher of PINS.watchers) watcher();
}

const pinButton = (row) => {
  const index = pinIndex(row);
  return el('button', { type: 'button', class: 'pin', 'aria-pressed': index >= 0 ? 'true' : 'false', 'aria-label': `Pin ${row.name}`, onclick: () => pin(row) },
    index >= 0 ? 'AB'[index] : 'Pin');
};

const terms = (pairs) => el('dl', { class: 'terms' }, pairs.filter((entry) => entry && entry[1] !== null && entry[1] !== undefined && entry[1] !== '')
  .map(([term, ...values]) => el('div', {}, el('dt', {}, term), el('dd', {}, ...values))));

function figureWithInterval(row, name) {
  const criterion = objective(name);
  const value = valueOf(row, name);
  if (value === null) return null;
  const around = interval(lowOf(row, name), highOf(row, name), criterion.unit);
  const of = name === 'quality' ? `, n = ${row.n}` : energetic(name) ? `, source: ${sourceOf(row)}` : '';
  return `${withUnit(value, criterion.unit)}${around ? ` ${around}` : ''}${of}`;
}

function verdictOf(row, front) {
  if (!front) return null;
  const index = front.index.get(row.index);
  if (index === undefined) return null;
  const tied = front.tied[row.index];
  const word = front.winners.has(row.index) ? 'on the frontier'
    : tied ? `dominated, but statistically indistinguishable from ${tied.map((entry) => ROWS[entry].name).join(', ')}` : 'dominated';
  const proven = front.proven[index] && (front.proven[index] === 'on' ? 'proven on the frontier' : 'proven dominated');
  return { word, p: front.p[index], proven, knee: front.knee === row.index };
}

function energyText(row) {
  const energy = energyOf(row);
  if (!energy) return 'not measured';
  if (energy.reason) return `unavailable: ${energy.reason}`;
  const net = energy.net === undefined ? '' : `, net of idle ${withUnit(energy.net, 'J/example')}`;
  return `${energy.source}, meter ${energy.meter}, ${count((energy.windows || []).length, 'window')}${net}`;
}

// Single queries by timing, where they were timed both end to end and on the device.
function timings(row) {
  const single = row.others.filter((entry) => entry.scenario === 'single-stream');
  if (single.length < 2) return [];
  const percentiles = (entry) => Object.entries(entry.latency_s).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${inColumn(value, 's')}`);
  return single.map((entry) => [`single queries, ${entry.timing}, ms`, `${percentiles(entry).join(', ')}; ${count(entry.queries, 'sample')} in ${count(entry.blocks, 'block')}`]);
}

function details(row, front) {
  const verdict = verdictOf(row, front);
  return el('div', { class: 'details' },
    el('h3', {}, row.name),
    verdict && el('p', { class: 'verdict' }, `${verdict.word}${verdict.knee ? `; the knee, in ${percent(front.p_knee)} of resamplings` : ''}. P(frontier) = ${fixed(verdict.p, 2)}, ${verdict.proven || 'not proven'}, for ${front.objectives.map((name) => name === 'quality' ? row.metric : objective(name).short).join(' and ')}.`),
    row.loss && row.latest && el('p', {}, lossChip(row), ` ${row.loss[1]}`),
    row.host_overhead_share !== null && soft(`Host overhead: ${percent(row.host_overhead_share)} of the time of a single query is not spent on the device. Reductions do not shorten it.`),
    terms([
      ...DATA.objectives.map((criterion) => [criterion.name === 'quality' ? row.metric : criterion.short, figureWithInterval(row, criterion.name)]),
      row.label_f1.length ? ['F1 of each label', row.label_f1.map(([name, value]) => `${name} ${value === null ? 'none' : fixed(value, 4)}`).join(', ')] : null,
      ...timings(row),
      ['energy source', energyText(row)],
      ['reduction', row.technique === 'full' ? 'none' : `${row.technique}: ${row.level_text}`],
      ['variant', `${row.variant}${row.scheme === row.variant ? '' : ` (${row.scheme})`}`],
      ['runs on', `${row.backend}, ${row.device}`],
      ['model', [row.model, row.regime && `regime ${row.regime}`].filter(Boolean).join(', ')],
      ['weights remaining', percent(row.weight_remaining, 1)],
      ['label agreement with the checkpoint', percent(row.parity, 1)],
      ['gates', row.failed_gates.length ? el('ul', { class: 'failed' }, row.failed_gates.map(([name, seen]) => el('li', {}, el('strong', {}, 'failed: '), `${name}: ${seen}`)))
        : `${row.gates - row.unchecked_gates} of ${row.gates} passed${row.unchecked_gates ? `, ${row.unchecked_gates} could not be checked` : ', none failed'}`],
      row.flags.length ? ['flags', [...new Set(row.flags)].join('; ')] : null,
    ]),
    provenance(row));
}

function provenance(row) {
  const host = DATA.hosts[row.host] || {};
  const set = DATA.settings[row.settings] || {};
  const plain = (value) => (typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value));
  return el('details', { class: 'provenance' }, el('summary', {}, 'Provenance of these numbers'),
    terms([
      ['result file', el('code', {}, `${row.id}.json`)],
      ['measured', `${row.started}, session ${row.session}`],
      ['rows', `${row.rows}, ${row.n}`],
      ['engine digest', el('code', {}, row.digest)],
      ['checkpoint', row.checkpoint],
      ['checkpoint digest', el('code', {}, row.checkpoint_digest)],
      ['host', `${row.host}: ${[host.cpu, `${host.cores} cores`, host.virtual ? 'virtual machine' : null, host.system].filter(Boolean).join(', ')}`],
      ['software', `effx ${host.effx}${host.effx_commit ? ` (${host.effx_commit})` : ''}, Python ${host.python}${set.versions ? `, ${Object.entries(set.versions).map((entry) => entry.join(' ')).join(', ')}` : ''}`],
      ...Object.entries(set).filter(([key, value]) => key !== 'versions' && value !== null).map(([key, value]) => [key, plain(value)]),
    ]));
}

function ratioText(ratio) {
  if (!ratio.interval) return { value: `${ratioNumber(ratio.value)}x`, around: 'no interval', sure: null };
  const [low, high] = ratio.interval;
  return { value: `${ratioNumber(ratio.value)}x`, around: `${ratioNumber(low)} to ${ratioNumber(high)}`, sure: low > 1 || high < 1 };
}

// Comparisons with the baseline have two p-values: unadjusted, and adjusted for their number.
function pairedTest(pair) {
  if (pair.p_value === null) return null;
  const adjustment = pair.p_adjusted === null ? '' : `, ${pValue(pair.p_adjusted)} adjusted for all comparisons with the baseline (Holm)`;
  return `${pair.test}: ${pValue(pair.p_value)}${adjustment}`;
}

function comparison(a, b) {
  const comparable = pairOf(a, b);
  if (!comparable.pair) return el('p', { class: 'note' }, `No paired comparison. ${comparable.why}`);
  const { pair } = comparable;
  const line = (what, value, around, word) => el('tr', {}, el('th', { scope: 'row', class: 'word' }, what), el('td', {}, value), el('td', {}, around), el('td', { class: 'word so' }, word));
  const verdict = (sure, less, more, value) => (sure === null ? '' : sure ? (value < 1 ? less : more) : 'statistically indistinguishable');
  const rows = [line(`${pair.metric}, points (n = ${pair.n}, ${pair.differing} predictions differ)`, percentagePoints(pair.difference),
    pair.interval ? pair.interval.map(percentagePoints).join(' to ') : 'no interval',
    [pair.non_inferiority, pairedTest(pair)].filter(Boolean).join('; '))];
  for (const ratio of pair.latency) {
    const entry = ratioText(ratio);
    rows.push(line(`latency, ${ratio.scenario} ${ratio.batch}×${ratio.length}, ${ratio.statistic}${ratio.paired ? '' : ' (not interleaved)'}`,
      entry.value, entry.around, verdict(entry.sure, 'B faster', 'B slower', ratio.value)));
  }
  if (pair.energy) {
    const entry = ratioText(pair.energy);
    rows.push(line(`energy per example (source: ${pair.energy.source})`, entry.value, entry.around, verdict(entry.sure, 'B uses less', 'B uses more', pair.energy.value)));
  }
  for (const [name, ratio] of Object.entries(pair.memory)) {
    if (ratio !== null) rows.push(line(`peak memory of the ${name.replace('_peak_bytes', '')}`, `${ratioNumber(ratio)}x`, '', ''));
  }
  return el('div', {},
    el('p', { class: 'sentence' }, pair.sentence),
    el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Paired comparison' }, el('table', {},
      el('caption', {}, `Differences are B minus A, ratios are B divided by A. A: ${comparable.a.name}. B: ${comparable.b.name}.`),
      el('thead', {}, el('tr', {}, ['quantity', 'B compared with A', '95 % interval', 'conclusion'].map((text, index) => el('th', { scope: 'col', class: index % 3 ? null : 'word' }, text)))),
      el('tbody', {}, rows))),
    pair.remarks.length ? el('details', {}, el('summary', {}, count(pair.remarks.length, 'remark')), el('ul', {}, pair.remarks.map((text) => el('li', {}, text)))) : null);
}

function pinnedPanel() {
  const root = el('div', { class: 'pinned-panel' });
  const update = () => {
    const [a, b] = PINS.rows;
    root.replaceChildren(...(a ? [
      el('h3', {}, b ? 'Pinned engines compared' : 'Pinned'),
      el('ul', { class: 'pins' }, PINS.rows.map((row, index) => el('li', {}, el('strong', {}, `${'AB'[index]} `), row.name, ' ',
        el('button', { type: 'button', class: 'quiet', 'aria-label': `Unpin ${row.name}`, onclick: () => pin(row) }, 'Unpin')))),
      b ? comparison(a, b) : soft('Pin a second engine, in the chart or in the table, to compare the two.'),
    ] : []));
  };
  PINS.watchers.push(update);
  update();
  return root;
}
